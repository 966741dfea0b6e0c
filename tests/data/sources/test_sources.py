"""Digits, folders and TFDS sets as sources, and what each says of a mistake."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.data.views import decode
from supcon_tf.errors import UserError


def first_image(split):
    image, label = next(iter(split.in_order()))
    return decode(image).numpy(), int(label)


def test_digits_are_split_by_class_without_overlap():
    source = sources.digits()
    assert source.train.num_examples + source.test.num_examples == 1797
    shares = np.bincount(source.test.labels) / (
        np.bincount(source.test.labels) + np.bincount(source.train.labels)
    )
    np.testing.assert_allclose(shares, 0.25, atol=0.005)
    image, _ = first_image(source.train)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert image.max() > 200
    seen = {image.numpy().tobytes() for image, _ in source.train.in_order()}
    repeated = sum(image.numpy().tobytes() in seen for image, _ in source.test.in_order())
    assert repeated == 0


def test_a_validation_share_leaves_the_test_images_alone():
    plain, split = sources.digits(), sources.digits(validation_share=0.1)
    assert split.train.num_examples + split.validation.num_examples == plain.train.num_examples
    np.testing.assert_array_equal(split.test.labels, plain.test.labels)
    assert set(np.bincount(split.validation.labels)) <= {13, 14}


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
    with pytest.raises(ValueError, match="at least two class folders"):
        sources.folder(str(root))
    shutil.copytree(image_folder / "dark", root / "test" / "gloomy")
    with pytest.raises(ValueError, match="only one of them has 'dark'"):
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
    with pytest.raises(ValueError, match=rf"{name}' holds .*validation_share must be 0, got 0\.1"):
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
    with pytest.raises(ValueError, match=r"train and val must have the same class folders"):
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
    with pytest.raises(ValueError, match=r"bright' has no image that can be read: .*move up"):
        sources.folder(str(image_folder))


def test_too_many_unreadable_images_are_an_error(image_folder):
    for number in range(3):
        (image_folder / "dark" / f"broken{number}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3 of 27 images cannot be read, first '.*broken0.jpg'"):
        sources.folder(str(image_folder))


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(UserError, match="no folder '/nowhere'"):
        sources.folder("/nowhere")
    with pytest.raises(ValueError, match=r"at least two class folders.*found none"):
        sources.folder(str(tmp_path))
    (tmp_path / "cats").mkdir()
    with pytest.raises(ValueError, match="cats' has no image"):
        sources.folder(str(tmp_path))


def test_one_class_and_one_image_of_a_class_are_named(image_folder):
    shutil.rmtree(image_folder / "dark")
    with pytest.raises(ValueError, match="found only 'bright'"):
        sources.folder(str(image_folder))
    lone = image_folder / "lone" / "one.jpg"
    lone.parent.mkdir()
    shutil.copy(image_folder / "bright" / "01.jpg", lone)
    with pytest.raises(
        ValueError, match=r"the class folder 'lone' in .* has 1 readable images, 2 are needed"
    ):
        sources.folder(str(image_folder))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A small set written by TFDS itself, as any prepared one lies on disk."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)

    def examples(size):
        for number in range(size):
            yield (
                f"{number:03d}",
                {
                    "image": rng.integers(0, 256, (8, 8, 3)).astype(np.uint8),
                    "label": number % 3,
                },
            )

    class Little(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(8, 8, 3)),
                        "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {"train": examples(30), "test": examples(9)}

        def _generate_examples(self):
            return iter(())

    directory = tmp_path_factory.mktemp("tfds")
    Little(data_dir=directory).download_and_prepare()
    return str(directory)


def test_a_tfds_set_is_read_by_number(tfds_dir):
    source = sources.tfds("little", data_dir=tfds_dir, validation_share=0.2)
    assert isinstance(source.train, IndexedSplit)
    sizes = [split.num_examples for split in (source.train, source.validation, source.test)]
    assert sizes == [24, 6, 9]
    assert source.class_names == ("a", "b", "c")
    image, label = first_image(source.test)
    assert image.shape == (8, 8, 3)
    assert label in (0, 1, 2)


def test_a_large_tfds_set_is_streamed_with_the_same_images(tfds_dir, monkeypatch):
    in_memory = sources.tfds("little", data_dir=tfds_dir)
    monkeypatch.setattr(sys.modules["supcon_tf.data.sources.tfds"], "IN_MEMORY_BYTES", 0)
    source = sources.tfds("little", data_dir=tfds_dir)
    assert isinstance(source.train, StreamedSplit)

    def bytes_of(dataset):
        return [decode(image).numpy().tobytes() for image, _ in dataset]

    assert bytes_of(source.train.in_order()) == bytes_of(in_memory.train.in_order())
    order = bytes_of(source.train.shuffled(seed=1, start=0, stop=30))
    assert sorted(order) == sorted(bytes_of(in_memory.train.in_order()))
    assert bytes_of(source.train.shuffled(seed=1, start=7, stop=30)) == order[7:]
    with pytest.raises(ValueError, match="validation_share must be 0"):
        sources.tfds("little", data_dir=tfds_dir, validation_share=0.1)
    slices = {"train_split": "train[:70%]", "validation_split": "train[70%:]"}
    source = sources.tfds("little", data_dir=tfds_dir, **slices)
    assert isinstance(source.train, StreamedSplit)
    assert isinstance(source.validation, StreamedSplit)
    assert source.train.num_examples + source.validation.num_examples == 30


def test_every_cache_of_a_tfds_set_gives_the_same_images_in_the_same_order(tfds_dir, tmp_path):
    def examples(source, name):
        split = getattr(source, name)
        return [(decode(image).numpy().tobytes(), int(label)) for image, label in split.in_order()]

    options = {"data_dir": tfds_dir, "cache_dir": str(tmp_path)}
    kinds = {"auto": IndexedSplit, "memory": IndexedSplit, "disk": IndexedSplit}
    kinds["none"] = StreamedSplit
    read = {cache: sources.tfds("little", cache=cache, **options) for cache in kinds}
    for cache, kind in kinds.items():
        assert isinstance(read[cache].train, kind)
        for name in ("train", "test"):
            assert examples(read[cache], name) == examples(read["memory"], name)
    assert read["memory"].train.reads_batches
    assert not read["disk"].train.reads_batches
    # Named after set and split, and by a hash after the folder that the set is in.
    folders = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert folders == ["little-1.0.0-test", "little-1.0.0-train"]


def test_slices_of_a_tfds_set_have_caches_of_their_own(tfds_dir, tmp_path):
    whole = sources.tfds("little", data_dir=tfds_dir)
    source = sources.tfds(
        "little",
        data_dir=tfds_dir,
        train_split="train[:70%]",
        validation_split="train[70%:]",
        cache="disk",
        cache_dir=str(tmp_path),
    )
    parts = [source.train.labels, source.validation.labels]
    np.testing.assert_array_equal(np.concatenate(parts), whole.train.labels)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_validation_share_can_be_taken_of_a_cached_set(tfds_dir, tmp_path):
    options = {"data_dir": tfds_dir, "validation_share": 0.2}
    on_disk = sources.tfds("little", cache="disk", cache_dir=str(tmp_path), **options)
    in_memory = sources.tfds("little", **options)
    for name in ("train", "validation"):
        ours, expected = getattr(on_disk, name), getattr(in_memory, name)
        assert len(ours.labels) == len(expected.labels) > 0
        for (image, label), (other, other_label) in zip(
            ours.in_order(), expected.in_order(), strict=True
        ):
            np.testing.assert_array_equal(decode(image), other)
            assert int(label) == int(other_label)


def test_a_sequence_of_classes_becomes_rows_of_0_and_1_in_every_cache(tmp_path):
    """As voc/2007 has it: a feature `labels`, and no supervised keys."""
    import tensorflow_datasets as tfds

    of_images = [["b"], ["a", "c"], [], ["c", "b", "a"]]

    def examples():
        for number, labels in enumerate(of_images):
            image = np.full((8, 8, 3), number, np.uint8)
            yield number, {"image": image, "labels": labels}

    class Several(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            classes = tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"]))
            image = tfds.features.Image(shape=(8, 8, 3))
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({"image": image, "labels": classes})
            )

        def _split_generators(self, dl_manager):
            return {"train": examples(), "test": examples()}

        def _generate_examples(self):
            return iter(())

    Several(data_dir=tmp_path).download_and_prepare()
    expected = {0: [0, 1, 0], 1: [1, 0, 1], 2: [0, 0, 0], 3: [1, 1, 1]}
    for cache in ("memory", "disk", "none"):
        source = sources.tfds("several", data_dir=str(tmp_path), cache=cache)
        assert source.is_multi_label
        assert source.class_names == ("a", "b", "c")
        for split in (source.train, source.test):
            read = {int(decode(image)[0, 0, 0]): label for image, label in split.in_order()}
            assert {level: label.numpy().tolist() for level, label in read.items()} == expected


def test_labels_outside_of_the_classes_are_named():
    images = np.zeros([3, 8, 8, 3], np.uint8)
    split = IndexedSplit(np.array([0, 1, -1]), lambda number: tf.gather(images, number))
    with pytest.raises(ValueError, match=r"'mine', test, must be in 0 ... 1, got -1"):
        sources.Source("mine", ("a", "b"), split.take(np.array([0, 1])), split)
    rows = IndexedSplit(np.array([[0, 1], [1, 2], [0, 0]]), split.read)
    some = rows.take(np.array([0]))
    for wrong, says in (
        (rows, "must be 0 or 1 for each of 2 classes, got 0 ... 2"),
        (split, "must be of the training images' kind"),
        (rows.take(np.array([2])), "no image of 'mine', test, has a label"),
    ):
        with pytest.raises(ValueError, match=says):
            sources.Source("mine", ("a", "b"), some, wrong)
    with pytest.raises(ValueError, match=r"0 or 1 for each of 3 classes, got .* shape"):
        sources.Source("mine", ("a", "b", "c"), some, some)


def test_tfds_mistakes_are_named(tfds_dir, tmp_path):
    with pytest.raises(ValueError, match=r"cache must be one of .*'disk'.*, got 'ram'"):
        sources.tfds("little", data_dir=tfds_dir, cache="ram")
    with pytest.raises(ValueError, match=r"cifar10' is not in .*sources.tfds.download = True"):
        sources.tfds("cifar10", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="no TFDS set named 'no_such_set'"):
        sources.tfds("no_such_set", data_dir=str(tmp_path))
    message = re.escape("has the splits ['test', 'train'], got 'valid'")
    with pytest.raises(ValueError, match=message):
        sources.tfds("little", data_dir=tfds_dir, test_split="valid")
