"""Folders of images as a source."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.errors import UserError
from tests.data.sources.images import first_image


def test_a_folder_without_a_test_folder_is_split_the_same_way_each_time(image_folder):
    source = sources.folder(str(image_folder))
    assert source.class_names == ("bright", "dark")
    assert (source.train.num_examples, source.test.num_examples) == (20, 4)
    assert not set(source.train.paths) & set(source.test.paths)
    assert sources.folder(str(image_folder)).test.paths == source.test.paths
    assert sources.folder(str(image_folder), seed=1).test.paths != source.test.paths
    for split in (source.train, source.test):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert Path(path).parent.name == source.class_names[label]


def test_a_folder_with_train_and_test_keeps_that_split(image_folder, tmp_path):
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
def test_a_validation_folder_is_for_choosing_or_without_test_held_out(name, image_folder, tmp_path):
    root = tmp_path / "split"
    for part in ("train", name, "test"):
        shutil.copytree(image_folder, root / part)
    source = sources.folder(str(root))
    for part, split in (("train", source.train), ("test", source.test), (name, source.validation)):
        assert split.num_examples == 24
        assert {Path(path).parent.parent.name for path in split.paths} == {part}
    with pytest.raises(UserError, match=rf"{name}' holds .*validation_share must be 0, got 0\.1"):
        sources.folder(str(root), validation_share=0.1)
    shutil.rmtree(root / "test")
    held_out = sources.folder(str(root), validation_share=0.25)
    assert held_out.test.paths == source.validation.paths
    assert held_out.validation.num_examples == 6


def test_validation_folders_that_cannot_be_used_are_named(image_folder, tmp_path):
    root = tmp_path / "split"
    for part in ("train", "val", "valid", "test"):
        shutil.copytree(image_folder, root / part)
    with pytest.raises(
        ValueError, match=r"one validation folder, got \['val', 'valid'\]: leave one"
    ):
        sources.folder(str(root))
    shutil.rmtree(root / "valid")
    shutil.move(root / "val" / "dark", root / "val" / "gloomy")
    with pytest.raises(UserError, match=r"train and val must have the same class folders"):
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


def test_unreadable_images_are_named_counted_and_left_out(image_folder, capsys):
    (image_folder / "dark" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    source = sources.folder(str(image_folder))
    assert source.train.num_examples + source.test.num_examples == 24
    said = capsys.readouterr()
    assert "left out 1 of 25 images" in said.out + said.err
    assert "broken.jpg" in said.out + said.err


def test_folders_within_a_class_folder_are_named_and_left_out(image_folder, capsys):
    (image_folder / "bright" / "old").mkdir()
    shutil.copy(image_folder / "bright" / "01.jpg", image_folder / "bright" / "old" / "01.jpg")
    source = sources.folder(str(image_folder))
    assert source.train.num_examples + source.test.num_examples == 24
    assert "left out 1 folders within class folders, first" in capsys.readouterr().out
    for file in (image_folder / "bright").glob("*.jpg"):
        file.unlink()
    with pytest.raises(UserError, match=r"bright' has no image that can be read: .*move up"):
        sources.folder(str(image_folder))


def test_too_many_unreadable_images_are_an_error(image_folder):
    for number in range(3):
        (image_folder / "dark" / f"broken{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"3 of 27 images cannot be read, first '.*broken0.jpg'"):
        sources.folder(str(image_folder))


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(UserError, match="no folder '/nowhere'"):
        sources.folder("/nowhere")
    with pytest.raises(UserError, match=r"at least two class folders.*found none"):
        sources.folder(str(tmp_path))
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError, match="cats' has no image"):
        sources.folder(str(tmp_path))


def test_one_class_and_one_image_of_a_class_are_named(image_folder):
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
