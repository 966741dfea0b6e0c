"""Training batches as a function of seed and step, evaluation batches in order."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.data.batches import evaluation_batches, training_batches
from supcon_tf.data.splits import IndexedSplit


@pytest.fixture(scope="module")
def split():
    images = tf.cast(
        tf.random.stateless_uniform([10, 12, 12, 3], [0, 0], 0, 256, tf.int32), tf.uint8
    )
    return IndexedSplit(np.arange(10, dtype=np.int64), lambda number: tf.gather(images, number))


def batches_of(split, *, seed=0, batch_size=4, num_views=2, augmentation=views.identity):
    return training_batches(
        split,
        preprocessing=views.Preprocessing(image_px=8),
        augmentation=augmentation,
        num_views=num_views,
        batch_size=batch_size,
        seed=seed,
    )


def arrays(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_a_batch_holds_views_and_labels(split):
    ((images, labels),) = arrays(batches_of(split)(0, 1))
    assert images.shape == (4, 2, 8, 8, 3)
    assert images.dtype == np.float32
    assert -1 <= images.min() < images.max() <= 1
    assert labels.dtype == np.int64


@pytest.mark.parametrize("augmentation", [views.identity, views.simclr])
def test_any_batch_can_be_made_without_the_ones_before(split, augmentation):
    batches = batches_of(split, augmentation=augmentation)
    whole = arrays(batches(0, 7))
    for start in (1, 3, 6):
        assert_equal(arrays(batches(start, 7)), whole[start:])
    assert_equal(arrays(batches_of(split, augmentation=augmentation)(0, 7)), whole)


def test_views_of_an_image_differ_between_places_views_steps_and_seeds(split):
    one = split.take(np.array([0]))
    first = arrays(batches_of(one, batch_size=1, num_views=3)(0, 2))
    views_seen = [view for images, _ in first for view in images[0]]
    other_seed = arrays(batches_of(one, batch_size=1, num_views=3, seed=1)(0, 1))
    views_seen += list(other_seed[0][0][0])
    assert len({view.tobytes() for view in views_seen}) == len(views_seen)


def test_ten_images_in_batches_of_four_come_round_without_a_loss(split):
    labels = np.concatenate([labels for _, labels in arrays(batches_of(split)(0, 5))])
    assert np.bincount(labels).tolist() == [2] * 10


def test_the_order_does_not_depend_on_the_number_of_threads(split):
    expected = arrays(batches_of(split, augmentation=views.simclr)(0, 4))
    for threads in (1, 4):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = batches_of(split, augmentation=views.simclr)(0, 4).with_options(options)
        assert_equal(arrays(dataset), expected)


def test_a_batch_larger_than_the_set_is_named(split):
    with pytest.raises(ValueError, match="at most the 10 training images, got 11"):
        batches_of(split, batch_size=11)


def test_evaluation_batches_hold_every_image_once_in_order(split):
    batches = evaluation_batches(
        split.in_order(), preprocessing=views.Preprocessing(image_px=8), batch_size=4
    )
    shapes = [images.shape for images, _ in arrays(batches)]
    assert shapes == [(4, 8, 8, 3), (4, 8, 8, 3), (2, 8, 8, 3)]
    labels = np.concatenate([labels for _, labels in arrays(batches)])
    assert labels.tolist() == list(range(10))
