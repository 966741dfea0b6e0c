"""Folder layouts of downloaded data sets, and images without labels."""

import shutil

import numpy as np
import pytest
from PIL import Image

from supcon_tf.data import sources
from supcon_tf.data.views import decode
from supcon_tf.errors import UserError

CLASSES = ("n01440764", "n02102040", "n03000684")


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), level, np.uint8)).save(path, "PNG")


def save_classes(folder, *, below="", count=3):
    for label, name in enumerate(CLASSES):
        for number in range(count):
            save(folder / name / below / f"{name}_{number}.JPEG", label)


def labels_of(split):
    """Grey levels, which encode the right labels, and the labels."""
    return [(int(decode(image)[0, 0, 0]), int(label)) for image, label in split.in_order()]


def assert_read(source, *, train=9, test=6):
    assert source.class_names == CLASSES
    assert (source.train.num_examples, source.test.num_examples) == (train, test)
    for split in (source.train, source.test):
        assert all(level == label for level, label in labels_of(split))


def save_flat(folder, pattern="val_{}.JPEG"):
    """Six images; their sorted order mixes the classes."""
    for number in range(6):
        save(folder / pattern.format(number), number % 3)


def test_tiny_imagenet_is_read_as_downloaded(tmp_path, capsys):
    save_classes(tmp_path / "train", below="images")
    for name in CLASSES:
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t0\t9\t9\n")
    save_flat(tmp_path / "val" / "images")
    lines = [f"val_{number}.JPEG\t{CLASSES[number % 3]}\t0\t0\t9\t9\n" for number in range(6)]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    save_flat(tmp_path / "test" / "images", "test_{}.JPEG")
    (tmp_path / "wnids.txt").write_text("\n".join(CLASSES))
    assert_read(sources.folder(str(tmp_path)))
    said = capsys.readouterr().out
    assert "test', as its images have no labels" in said
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines[1:]))
    with pytest.raises(UserError, match=r"do not name '.*val_0\.JPEG'"):
        sources.folder(str(tmp_path))
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("".join([*lines, "val_0.JPEG\tdog\n"]))
    with pytest.raises(
        UserError, match=r"val_annotations\.txt' has two lines of 'val_0': remove one"
    ):
        sources.folder(str(tmp_path))
    capsys.readouterr()
    annotations.write_text("".join([*lines, "absent.JPEG\tdog\n"]))
    assert_read(sources.folder(str(tmp_path)))
    assert "1 of 7 annotations of" in (said := capsys.readouterr().out)
    assert "first 'absent'" in said
    save(tmp_path / "val" / "images" / "val_0.png")
    with pytest.raises(UserError, match=r"has two images 'val_0' of different suffixes"):
        sources.folder(str(tmp_path))


@pytest.mark.parametrize("root", [".", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
@pytest.mark.parametrize("annotations", ["csv", "xml"])
def test_imagenet_is_read_as_kaggle_distributes_it(root, annotations, tmp_path):
    images = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    save_classes(images / "train")
    save_flat(images / "val", "ILSVRC2012_val_{}.JPEG")
    save_flat(images / "test", "ILSVRC2012_test_{}.JPEG")
    of_images = {f"ILSVRC2012_val_{number}": CLASSES[number % 3] for number in range(6)}
    if annotations == "csv":
        rows = [f"{name},{label} 1 2 3 4 {label} 5 6 7 8 \n" for name, label in of_images.items()]
        text = "ImageId,PredictionString\n" + "".join(rows)
        (tmp_path / "LOC_val_solution.csv").write_text(text)
    else:
        folder = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "val"
        folder.mkdir(parents=True)
        for name, label in of_images.items():
            text = f"<annotation><object>\n<name>{label}</name></object></annotation>"
            (folder / f"{name}.xml").write_text(text)
    assert_read(sources.folder(str(tmp_path / root)))


def test_flat_validation_images_are_labelled_by_a_list_of_classes(tmp_path):
    save_classes(tmp_path / "train")
    save_flat(tmp_path / "val")
    names = tmp_path / "imagenet_2012_validation_synset_labels.txt"
    names.write_text("".join(f"{CLASSES[number % 3]}\n" for number in range(6)))
    assert_read(sources.folder(str(tmp_path)))
    # The list does not cover the test images, which have no labels.
    save(tmp_path / "test" / "1.JPEG")
    assert_read(sources.folder(str(tmp_path)))
    spaced = tmp_path / "val" / "val 0.JPEG"
    (tmp_path / "val" / "val_0.JPEG").rename(spaced)
    lines = [
        f"{path.name}\t{CLASSES[int(path.stem[4:]) % 3]}\n" for path in spaced.parent.iterdir()
    ]
    annotations = tmp_path / "val_annotations.txt"
    annotations.write_text("".join(lines))
    assert_read(sources.folder(str(tmp_path)))
    annotations.unlink()
    names.write_text("n01440764\n")
    with pytest.raises(UserError, match=r"has 1 lines and .* 6 images"):
        sources.folder(str(tmp_path))
    names.unlink()
    with pytest.raises(UserError, match=r"val' have no class folders: .*val_annotations\.txt"):
        sources.folder(str(tmp_path))


@pytest.mark.parametrize(
    "names", [("Training", "Testing", "valid"), ("TRAIN", "TEST", "Validation"), ("train", "test", "Val")]
)  # fmt: skip
def test_split_folders_have_other_names_in_any_case(names, tmp_path):
    for name, count in zip(names, (3, 2, 1), strict=True):
        save_classes(tmp_path / name, count=count)
    source = sources.folder(str(tmp_path))
    assert_read(source)
    assert source.validation.num_examples == 3


def test_train_may_be_the_name_of_a_class(tmp_path):
    for name in ("bus", "car", "train"):
        for number in range(3):
            save(tmp_path / name / f"{number}.png")
    assert sources.folder(str(tmp_path)).class_names == ("bus", "car", "train")


def test_linked_class_and_split_folders_are_not_read_twice(tmp_path):
    save_classes(tmp_path / "a" / "train")
    (tmp_path / "a" / "test").symlink_to(tmp_path / "a" / "train")
    with pytest.raises(UserError, match=r"test' and '.*train' are the same folder, by a link"):
        sources.folder(str(tmp_path / "a"))
    save_classes(tmp_path / "b")
    (tmp_path / "b" / "zebra").symlink_to(tmp_path / "b" / CLASSES[0])
    with pytest.raises(UserError, match=r"zebra' are the same folder, by a link: leave one"):
        sources.folder(str(tmp_path / "b"))


def test_layouts_that_are_not_recognised_are_rejected(tmp_path, capsys):
    for name in ("test", "valid"):
        save_classes(tmp_path / name)
    with pytest.raises(UserError, match="has test and valid, but no folder 'train'"):
        sources.folder(str(tmp_path))
    save_classes(tmp_path / "Train")
    save_classes(tmp_path / "extra")
    sources.folder(str(tmp_path))
    assert "left out 1 folders beside the splits, first 'extra'" in capsys.readouterr().out
    save_classes(tmp_path / "training")
    with pytest.raises(UserError, match="two train folders, 'Train' and 'training': leave one"):
        sources.folder(str(tmp_path))


def test_folder_in_a_folder_and_archives_are_in_the_error(tmp_path):
    save_classes(tmp_path / "a" / "photos")
    with pytest.raises(UserError, match=r"found only 'photos': .*did you mean '.*a/photos'\?"):
        sources.folder(str(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"found none: .*extract '.*ILSVRC2012_img_val\.tar'"):
        sources.folder(str(tmp_path / "b"))


def test_images_without_class_folders_have_no_labels(tmp_path, capsys):
    for number in range(10):
        save(tmp_path / f"{number}.png", number)
    source = sources.folder(str(tmp_path))
    assert not source.has_labels
    assert source.train.num_examples + source.test.num_examples == 10
    assert source.test.num_examples >= 1
    assert {label for _, label in labels_of(source.train)} == {-1}
    assert "images without labels" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"at least two class folders are needed .* = False"):
        sources.folder(str(tmp_path), labelled=True)


def test_labels_can_be_ignored(tmp_path):
    save_classes(tmp_path / "train", below="year/month")
    save_flat(tmp_path / "test")
    source = sources.folder(str(tmp_path), labelled=False)
    assert not source.has_labels
    assert (source.train.num_examples, source.test.num_examples) == (9, 6)
    shutil.rmtree(tmp_path / "train")
    save(tmp_path / "train" / "1.png")
    with pytest.raises(UserError, match=r"at least two images are needed in '.*train'"):
        sources.folder(str(tmp_path), labelled=False)


def test_subset_of_images_without_labels(tmp_path):
    for number in range(20):
        save(tmp_path / f"{number:02d}.png", number)
    source = sources.folder(str(tmp_path))
    assert sources.subset(source, first=3).train.num_examples == 3
    assert sources.subset(source, fraction=0.25).train.num_examples == 4
    for change in (
        lambda: sources.subset(source, per_class=1),
        lambda: sources.label_noise(source, probability=0.5),
    ):
        with pytest.raises(UserError, match="needs labels"):
            change()
