"""Folders of images as a source."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.errors import UserError
from tests.data.sources.images import first_image


def test_random_test_split_depends_on_the_seed_only(image_folder):
    source = sources.folder(str(image_folder))
    assert source.class_names == ("bright", "dark")
    # About a fifth of twelve images of each class.
    assert source.train.num_examples + source.test.num_examples == 24
    assert set(source.test.labels) == {0, 1}
    assert not set(source.train.paths) & set(source.test.paths)
    assert sources.folder(str(image_folder)).test.paths == source.test.paths
    assert sources.folder(str(image_folder), seed=1).test.paths != source.test.paths
    for split in (source.train, source.test):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert Path(path).parent.name == source.class_names[label]


def test_train_and_test_folders_are_the_splits(image_folder, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(image_folder, root / "train")
    shutil.copytree(image_folder, root / "test")
    source = sources.folder(str(root))
    assert (source.train.num_examples, source.test.num_examples) == (24, 24)
    shutil.rmtree(root / "test" / "dark")
    with pytest.raises(UserError, match="at least two class folders"):
        sources.folder(str(root))
    shutil.copytree(image_folder / "dark", root / "test" / "gloomy")
    with pytest.raises(UserError, match="only one of them has 'dark'"):
        sources.folder(str(root))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder_is_the_test_split_where_there_is_no_test_folder(
    name, image_folder, tmp_path
):
    root = tmp_path / "split"
    for part in ("train", name, "test"):
        shutil.copytree(image_folder, root / part)
    source = sources.folder(str(root))
    for part, split in (("train", source.train), ("test", source.test), (name, source.validation)):
        assert split.num_examples == 24
        assert {Path(path).parent.parent.name for path in split.paths} == {part}
    with pytest.raises(
        UserError, match=r"has images for validation: .*validation_share must be 0, got 0\.1"
    ):
        sources.folder(str(root), validation_share=0.1)
    shutil.rmtree(root / "test")
    held_out = sources.folder(str(root), validation_share=0.25)
    assert held_out.test.paths == source.validation.paths
    assert held_out.train.num_examples + held_out.validation.num_examples == 24


def test_adding_an_image_moves_no_other_one(image_folder):
    before = sources.folder(str(image_folder), validation_share=0.25)
    for name in ("bright", "dark"):
        shutil.copy(image_folder / "dark" / "00.jpg", image_folder / name / "000.jpg")
    after = sources.folder(str(image_folder), validation_share=0.25)
    for part in ("train", "test", "validation"):
        new = set(getattr(after, part).paths) - set(getattr(before, part).paths)
        assert set(getattr(before, part).paths) <= set(getattr(after, part).paths)
        assert all(Path(path).name == "000.jpg" for path in new)


def test_two_validation_folders_and_other_classes_are_rejected(image_folder, tmp_path):
    root = tmp_path / "split"
    for part in ("train", "val", "valid", "test"):
        shutil.copytree(image_folder, root / part)
    with pytest.raises(ValueError, match="two validation folders, 'val' and 'valid': leave one"):
        sources.folder(str(root))
    shutil.rmtree(root / "valid")
    shutil.move(root / "val" / "dark", root / "val" / "gloomy")
    with pytest.raises(
        UserError, match=r"train and val must have the same classes in .* has 'dark'"
    ):
        sources.folder(str(root))


def test_images_of_other_formats_and_of_any_case_are_read(image_folder):
    grey = tf.cast(tf.fill([9, 11, 1], 90), tf.uint8)
    (image_folder / "dark" / "a.PNG").write_bytes(tf.io.encode_png(grey).numpy())
    (image_folder / "dark" / "notes.txt").write_text("not an image")
    source = sources.folder(str(image_folder))
    assert source.train.num_examples + source.test.num_examples == 25
    ((split, number),) = (
        (split, number)
        for split in (source.train, source.test)
        for number, path in enumerate(split.paths)
        if path.endswith("a.PNG")
    )
    image, label = first_image(split.take(np.array([number])))
    np.testing.assert_array_equal(image, np.full((9, 11, 3), 90))
    assert source.class_names[label] == "dark"


def test_unreadable_images_are_reported_and_left_out(image_folder, capsys):
    (image_folder / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    source = sources.folder(str(image_folder))
    assert source.train.num_examples + source.test.num_examples == 24
    said = capsys.readouterr()
    assert "left out 1 of 25 images" in said.out + said.err
    assert "broken.jpg" in said.out + said.err


def test_folders_within_a_class_folder_are_reported_and_left_out(image_folder, capsys):
    (image_folder / "bright" / "old").mkdir()
    shutil.copy(image_folder / "bright" / "01.jpg", image_folder / "bright" / "old" / "01.jpg")
    source = sources.folder(str(image_folder))
    assert source.train.num_examples + source.test.num_examples == 24
    assert "left out: 1 folders within class folders (first" in capsys.readouterr().out
    for file in (image_folder / "bright").glob("*.jpg"):
        file.unlink()
    with pytest.raises(UserError, match=r"bright' has no images .*move up"):
        sources.folder(str(image_folder))


def test_too_many_unreadable_images_are_an_error(image_folder):
    for number in range(3):
        (image_folder / "dark" / f"broken{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"3 of 27 images cannot be read, first '.*broken0.jpg'"):
        sources.folder(str(image_folder))


def test_missing_and_empty_folders_are_rejected(tmp_path):
    with pytest.raises(UserError, match="no folder '/nowhere'"):
        sources.folder("/nowhere")
    with pytest.raises(UserError, match=r"at least two class folders.*found none"):
        sources.folder(str(tmp_path))
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError, match="found only 'cats'"):
        sources.folder(str(tmp_path))


def test_one_class_and_one_image_of_a_class_are_rejected(image_folder):
    shutil.rmtree(image_folder / "dark")
    with pytest.raises(UserError, match="found only 'bright'"):
        sources.folder(str(image_folder))
    lone = image_folder / "lone" / "one.jpg"
    lone.parent.mkdir()
    shutil.copy(image_folder / "bright" / "01.jpg", lone)
    with pytest.raises(
        ValueError, match=r"the class folder 'lone' in .* has 1 readable images, 2 are needed"
    ):
        sources.folder(str(image_folder))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"root": ""}, "sources.folder.root must be text such as '/data/photos', got ''"),
        ({"unreadable_limit": -1.0}, "unreadable_limit must be a number >= 0 and <= 1, got -1.0"),
        ({"unreadable_limit": float("nan")}, "unreadable_limit must be a number .* got nan"),
        ({"test_share": 0.0}, "sources.folder.test_share must be a number > 0 and < 1, got 0.0"),
        ({"validation_share": 1}, "validation_share must be a number >= 0 and < 1, got 1"),
        ({"seed": -1}, "sources.folder.seed must be an integer >= 0, got -1"),
        ({"seed": 0.5}, "sources.folder.seed must be an integer >= 0, got 0.5"),
        ({"check_images": None}, "check_images must be True or False, got None"),
        ({"labelled": "False"}, "sources.folder.labelled must be True, False or None, got 'False'"),
    ],
)
def test_option_out_of_range_is_rejected(image_folder, options, says):
    with pytest.raises(UserError, match=says):
        sources.folder(**({"root": str(image_folder)} | options))


def test_class_folder_that_is_not_utf_8_is_rejected_and_such_a_file_is_read(image_folder):
    shutil.copy(image_folder / "dark" / "00.jpg", image_folder / "dark" / "k\udce4fer.jpg")
    source = sources.folder(str(image_folder))
    images = [*source.train.in_order(), *source.test.in_order()]
    assert len(images) == 25
    (image_folder / "dark").rename(image_folder / "k\udce4fer")
    with pytest.raises(UserError, match=r"class names must be UTF-8, got 'k\\udce4fer'"):
        sources.folder(str(image_folder))
