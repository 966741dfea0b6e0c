"""TensorFlow Datasets sets as a source."""

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.data.views import decode
from supcon_tf.errors import UserError
from tests.data.sources.images import first_image


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    """The folder of a small prepared set."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)

    def examples(size):
        for number in range(size):
            yield (
                f"{number:03d}",
                {
                    "image": rng.integers(0, 256, (8, 8, 3)).astype(np.uint8),
                    "label": number % 3,
                    "id": f"train_{size - 1 - number:05d}",
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
                        "id": tfds.features.Text(),
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


def test_small_set_is_read_by_number(tfds_dir):
    source = sources.tfds("little", data_dir=tfds_dir, validation_share=0.2)
    assert isinstance(source.train, IndexedSplit)
    sizes = [split.num_examples for split in (source.train, source.validation, source.test)]
    assert sizes == [24, 6, 9]
    assert source.class_names == ("a", "b", "c")
    image, label = first_image(source.test)
    assert image.shape == (8, 8, 3)
    assert label in (0, 1, 2)


def test_large_set_is_streamed_with_the_same_images(tfds_dir, monkeypatch):
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
    with pytest.raises(UserError, match="validation_share must be 0"):
        sources.tfds("little", data_dir=tfds_dir, validation_share=0.1)
    slices = {"train_split": "train[:70%]", "validation_split": "train[70%:]"}
    source = sources.tfds("little", data_dir=tfds_dir, **slices)
    assert isinstance(source.train, StreamedSplit)
    assert isinstance(source.validation, StreamedSplit)
    assert source.train.num_examples + source.validation.num_examples == 30


def test_all_caches_give_the_same_images_in_the_same_order(tfds_dir, tmp_path):
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
    # Named after set, split, and the hash of the set's folder.
    folders = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert folders == ["little-1.0.0-test", "little-1.0.0-train"]


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_images_can_be_listed_by_the_numbers_and_names_of_the_set(tfds_dir, tmp_path, cache):
    source = sources.tfds("little", data_dir=tfds_dir, cache=cache, cache_dir=str(tmp_path))
    names = source.train.names()
    assert sorted(names) == [f"train_{number:05d}" for number in range(30)]
    # The set has its images in another order than the numbers.
    assert names != tuple(sorted(names))
    listed = tmp_path / "list.txt"
    listed.write_text("17\ntrain_00004\n")
    part = sources.subset(source, list_file=str(listed)).train
    assert sorted(part.names()) == ["train_00004", "train_00017"]
    # The label of number n is (29 - n) % 3.
    labels = dict(zip(part.names(), part.labels.tolist(), strict=True))
    assert labels == {"train_00017": 0, "train_00004": 1}
    listed.write_text("30\n")
    with pytest.raises(UserError, match=r"first '30', which names 0 of 30"):
        sources.subset(source, list_file=str(listed))
    # A number that two images have names neither.
    twice = dataclasses.replace(
        source, train=dataclasses.replace(source.train, names=lambda: (*names[:-1], "test_00017"))
    )
    listed.write_text("17\n")
    with pytest.raises(UserError, match=r"first '17', which names 0 of"):
        sources.subset(twice, list_file=str(listed))
    if cache == "disk":
        again = sources.tfds("little", data_dir=tfds_dir, cache=cache, cache_dir=str(tmp_path))
        assert again.train.names() == names
        (file,) = tmp_path.rglob("names.json")
        file.write_text('{"id": ["train_00001"]}')
        with pytest.raises(UserError, match=r"names\.json' is damaged: remove it"):
            sources.tfds("little", data_dir=tfds_dir, cache=cache, cache_dir=tmp_path).train.names()


def test_slices_have_separate_caches(tfds_dir, tmp_path):
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


def test_validation_share_of_a_cached_set(tfds_dir, tmp_path):
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


def test_sequence_of_classes_becomes_rows_of_0_and_1_in_every_cache(tmp_path):
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


def test_unknown_sets_splits_and_caches_are_rejected(tfds_dir, tmp_path):
    with pytest.raises(UserError, match=r"cache must be one of .*'disk'.*, got 'ram'"):
        sources.tfds("little", data_dir=tfds_dir, cache="ram")
    with pytest.raises(UserError, match=r"cifar10' is not in .*sources.tfds.download = True"):
        sources.tfds("cifar10", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="no TFDS set named 'no_such_set'"):
        sources.tfds("no_such_set", data_dir=str(tmp_path))
    message = re.escape("has the splits ['test', 'train'], got 'valid'")
    with pytest.raises(UserError, match=message):
        sources.tfds("little", data_dir=tfds_dir, test_split="valid")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": ""}, "sources.tfds.name must be text such as 'cifar10', got ''"),
        ({"name": "li ttle"}, "no TFDS set named 'li ttle': Parsing builder name"),
        ({"name": "little:abc"}, "named 'little:abc' in this version; found version 1.0.0"),
        ({"name": "little/conf"}, "no TFDS set named 'little/conf': "),
        ({"train_split": "train[:0]"}, r"train_split = 'train\[:0\]' has no images"),
        ({"test_split": "test[:200%]"}, r"has the splits \['test', 'train'\], got 'test\[:200%\]'"),
        ({"validation_split": ""}, "validation_split must be text such as"),
        ({"validation_share": 1.0}, "validation_share must be a number >= 0 and < 1, got 1.0"),
        ({"cache": "disk", "cache_dir": "/dev/null/x"}, "cannot write the cache '/dev/null/x"),
    ],
)
def test_invalid_option_is_a_one_line_error(tfds_dir, options, says):
    with pytest.raises(UserError, match=says) as raised:
        sources.tfds(**({"name": "little", "data_dir": tfds_dir} | options))
    assert "\n" not in str(raised.value)


def test_labels_can_be_left_out_in_every_cache(tfds_dir, tmp_path):
    options = {"data_dir": tfds_dir, "cache_dir": str(tmp_path)}
    for cache in ("memory", "disk", "none"):
        labelled = sources.tfds("little", cache=cache, **options)
        source = sources.tfds("little", cache=cache, labelled=False, **options)
        assert not source.has_labels
        for (image, label), (other, _) in zip(
            source.train.in_order(), labelled.train.in_order(), strict=True
        ):
            assert int(label) == -1
            np.testing.assert_array_equal(decode(image), decode(other))


@pytest.fixture
def other_version(tfds_dir, tmp_path):
    """A data_dir with version 0.9.0 of a set that the code knows as 1.0.0."""
    folder = tmp_path / "little" / "0.9.0"
    shutil.copytree(Path(tfds_dir) / "little" / "1.0.0", folder)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("1.0.0", "0.9.0"))
    return str(tmp_path)


def test_error_lists_another_version_on_disk_which_can_be_read(other_version, tfds_dir):
    for name in ("little", "little:1.0.0", "little:2.0.0"):
        with pytest.raises(UserError, match=r"found version 0.9.0 in .* = 'little:0.9.0'"):
            sources.tfds(name, data_dir=other_version)
    source = sources.tfds("little:0.9.0", data_dir=other_version)
    assert source.train.num_examples == 30
    # A set that this version of TFDS does not know at all.
    folder = Path(other_version) / "unknown" / "3.1.0"
    shutil.copytree(Path(other_version) / "little" / "0.9.0", folder)
    for file in folder.glob("little-*"):
        file.rename(file.with_name(file.name.replace("little", "unknown")))
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("0.9.0", "3.1.0").replace("little", "unknown"))
    assert sources.tfds("unknown", data_dir=other_version).test.num_examples == 9
    with pytest.raises(UserError, match=r"found version 3\.1\.0 in .* = 'unknown:3\.1\.0'"):
        sources.tfds("unknown:1.0.0", data_dir=other_version)
    info.write_text("{")
    with pytest.raises(UserError, match=r"no TFDS set named 'unknown:3.1.0'"):
        sources.tfds("unknown:3.1.0", data_dir=other_version)
