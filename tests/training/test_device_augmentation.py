"""Augmentation within the training step: the same views, and so the same training."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.losses import SupConLoss
from supcon_tf.models import contrastive_model
from supcon_tf.training.device_augmentation import augmenting_model

PREPROCESSING = views.Preprocessing(16, normalization=((0.1, 0.0, -0.1), (0.5, 0.6, 0.7)))


def split():
    images = tf.cast(
        tf.random.stateless_uniform([24, 20, 20, 3], [0, 0], 0, 256, tf.int32), tf.uint8
    )
    return IndexedSplit(
        np.arange(24) % 4, lambda number: tf.gather(images, number), reads_batches=True
    )


def trained(augmentation, *, defer_to_device, jit_compile=False):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 5, strides=3, activation="tanh"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = contrastive_model(encoder, image_shape=(16, 16, 3), projection=(8,))
    batches = training_batches(
        split(),
        preprocessing=PREPROCESSING,
        augmentation=augmentation,
        num_views=2,
        batch_size=8,
        num_classes=4,
        seed=0,
        defer_to_device=defer_to_device,
    )
    fitted = augmenting_model(model, PREPROCESSING, augmentation) if defer_to_device else model
    fitted.compile(keras.optimizers.SGD(0.5), SupConLoss(), jit_compile=jit_compile)
    history = fitted.fit(batches(0, 6), shuffle=False, verbose=0)
    return history.history["loss"][0], [variable.numpy() for variable in model.trainable_variables]


def assert_alike(one, other, atol):
    np.testing.assert_allclose(one[0], other[0], atol=atol)
    for left, right in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(left, right, atol=atol)


def test_training_is_the_same_wherever_the_augmentation_runs():
    expected = trained(views.simclr, defer_to_device=False)
    assert_alike(trained(views.simclr, defer_to_device=True), expected, 1e-5)


@pytest.mark.slow  # test_recipes.py compiles the augmentation.
def test_with_static_shapes_the_step_compiles_with_xla():
    augmentation = functools.partial(views.simclr, exact=False, static_shapes=True)
    expected = trained(augmentation, defer_to_device=False)
    compiled = trained(augmentation, defer_to_device=True, jit_compile=True)
    assert_alike(compiled, expected, 1e-4)
