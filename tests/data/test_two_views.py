import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3)).astype("uint8")


def batches(images=IMAGES, labels=True):
    arrays = (images, np.arange(len(images))) if labels else images
    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


def epoch(dataset):
    return np.concatenate([views.numpy() for views, _ in dataset])


def test_each_view_is_random_and_the_seed_repeats_them():
    dataset = views.two_views(batches(), image_px=8, augmentation=views.identity, seed=1)
    first, second = epoch(dataset), epoch(dataset)
    assert first.shape == (6, 2, 8, 8, 3)
    assert first.min() >= -1.001
    assert first.max() <= 1.001
    # Both views, all images and both epochs differ.
    flat = np.concatenate([first, second]).reshape(24, -1)
    assert len(np.unique(flat.round(3), axis=0)) == 24
    again = views.two_views(batches(), image_px=8, augmentation=views.identity, seed=1)
    np.testing.assert_array_equal(epoch(again), first)
    np.testing.assert_array_equal(epoch(again), second)
    other = views.two_views(batches(), image_px=8, augmentation=views.identity, seed=2)
    assert np.abs(epoch(other) - first).max() > 0.1


def test_labels_stay_with_their_images():
    levels = np.broadcast_to(
        np.uint8([0, 50, 100, 150, 200, 250])[:, None, None, None], IMAGES.shape
    )
    dataset = views.two_views(batches(levels), image_px=4, augmentation=views.identity)
    for pair, labels in dataset:
        means = (pair.numpy().mean((1, 2, 3, 4)) + 1) * 127.5
        np.testing.assert_allclose(means, 50 * labels.numpy(), atol=0.1)


def test_images_alone_and_floats_give_the_same_views():
    expected = epoch(views.two_views(batches(), image_px=8))
    alone = views.two_views(batches(IMAGES / np.float32(255), labels=False), image_px=8)
    np.testing.assert_allclose(np.concatenate(list(alone)), expected, atol=1e-4)


def test_float_images_in_another_range_are_rejected():
    dataset = views.two_views(batches(IMAGES.astype("float32")), image_px=8)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"float images must be in \[0, 1\]"):
        epoch(dataset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": tf.data.Dataset.from_tensor_slices(IMAGES)}, r"call \.batch first"),
        ({"batches": IMAGES}, "batches must be a tf.data.Dataset"),
        ({"image_px": 0}, "image_px must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"augmentation": "simclr"}, "augmentation must be a function"),
    ],
)
def test_wrong_arguments_are_rejected(arguments, message):
    with pytest.raises(UserError, match=message):
        views.two_views(**{"batches": batches(), "image_px": 8, **arguments})
