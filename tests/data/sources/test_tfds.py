"""TensorFlow Datasets sets as a source."""

import re
import sys

import numpy as np
import pytest

from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.data.views import decode
from supcon_tf.errors import UserError
from tests.data.sources.images import first_image


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
    with pytest.raises(UserError, match="validation_share must be 0"):
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


def test_tfds_mistakes_are_named(tfds_dir, tmp_path):
    with pytest.raises(UserError, match=r"cache must be one of .*'disk'.*, got 'ram'"):
        sources.tfds("little", data_dir=tfds_dir, cache="ram")
    with pytest.raises(UserError, match=r"cifar10' is not in .*sources.tfds.download = True"):
        sources.tfds("cifar10", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="no TFDS set named 'no_such_set'"):
        sources.tfds("no_such_set", data_dir=str(tmp_path))
    message = re.escape("has the splits ['test', 'train'], got 'valid'")
    with pytest.raises(UserError, match=message):
        sources.tfds("little", data_dir=tfds_dir, test_split="valid")
