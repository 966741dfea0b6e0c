"""The disk cache of encoded images."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.disk_cache import cached_split
from supcon_tf.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = [RNG.bytes(int(size)) for size in (5, 1, 300, 0, 77, 12, 4096)]
LABELS = np.array([3, 0, 2, 2, 1, 0, 3])


def batches(size=3):
    for start in range(0, len(IMAGES), size):
        images = np.array(IMAGES[start : start + size], object)
        yield images, LABELS[start : start + size]


def never():
    raise AssertionError("the images are on disk already")
    yield


def contents(dataset):
    return [(image.numpy(), int(label)) for image, label in dataset]


def test_images_and_labels_come_back_in_any_order(tmp_path):
    split = cached_split(tmp_path / "deep" / "train.cache", batches(), 7)
    assert split.num_examples == 7
    assert split.labels.dtype == np.int64
    assert not split.reads_batches
    assert contents(split.in_order()) == list(zip(IMAGES, LABELS, strict=True))
    taken = split.take(np.array([6, 3, 1]))
    assert contents(taken.in_order()) == [(IMAGES[n], LABELS[n]) for n in (6, 3, 1)]
    shuffled = contents(split.shuffled(seed=0, start=0, stop=14))
    assert sorted(shuffled) == sorted(2 * list(zip(IMAGES, LABELS, strict=True)))
    image, _ = next(iter(split.in_order()))
    assert image.dtype == tf.string
    assert split.in_order().element_spec[0].shape == ()


def test_images_are_written_once(tmp_path):
    folder = tmp_path / "train.cache"
    cached_split(folder, batches(), 7)
    written = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(written) == {"images", "ends.npy", "labels.npy"}
    again = cached_split(folder, never(), 7)
    assert contents(again.in_order()) == list(zip(IMAGES, LABELS, strict=True))
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    assert [path.name for path in tmp_path.iterdir()] == ["train.cache"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_writing_leaves_no_cache(tmp_path, error):
    def interrupted():
        yield next(batches())
        raise error("in the middle")

    folder = tmp_path / "train.cache"
    with pytest.raises(error, match="in the middle"):
        cached_split(folder, interrupted(), 7)
    assert list(tmp_path.iterdir()) == []
    split = cached_split(folder, batches(), 7)
    assert contents(split.in_order()) == list(zip(IMAGES, LABELS, strict=True))


def test_first_of_two_writers_wins(tmp_path):
    folder = tmp_path / "train.cache"

    def overtaken():
        cached_split(folder, batches(), 7)
        yield np.array(IMAGES[::-1], object), LABELS[::-1]

    split = cached_split(folder, overtaken(), 7)
    assert contents(split.in_order()) == list(zip(IMAGES, LABELS, strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["train.cache"]


@pytest.mark.parametrize("expected", [6, 8])
def test_other_number_of_images_is_rejected(tmp_path, expected):
    folder = tmp_path / "train.cache"
    cached_split(folder, batches(), 7)
    with pytest.raises(
        ValueError,
        match=rf"the cache has 7 images, the split {expected}: remove the folder '.*train.cache'",
    ):
        cached_split(folder, never(), expected)


def test_reading_in_parallel_gives_the_same_images(tmp_path):
    split = cached_split(tmp_path / "train.cache", batches(), 7)
    numbers = np.random.default_rng(1).integers(0, 7, 200)
    dataset = tf.data.Dataset.from_tensor_slices(numbers).map(split.example, num_parallel_calls=8)
    assert contents(dataset) == [(IMAGES[number], LABELS[number]) for number in numbers]


def test_damaged_cache_is_rejected(tmp_path):
    folder = tmp_path / "train.cache"
    cached_split(folder, batches(), 7)
    (folder / "images").write_bytes(b"short")
    with pytest.raises(UserError, match=r"the cache has 5 bytes, 4491 are needed: remove"):
        cached_split(folder, never(), 7)
    (folder / "ends.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"the cache is damaged .*: remove the folder"):
        cached_split(folder, never(), 7)
    (folder / "ends.npy").unlink()
    with pytest.raises(UserError, match=r"the cache is damaged .*: remove the folder"):
        cached_split(folder, never(), 7)
