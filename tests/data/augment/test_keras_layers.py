"""Keras and KerasCV layers as an augmentation: exact per seed, value range, gin, errors."""

import copy

import gin
import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import config
from supcon_tf.data import multi_crop, pipeline, sources, views
from supcon_tf.errors import UserError


def noise(count):
    images = np.random.default_rng(0).random((count, 16, 16, 3))
    return tf.constant(images, tf.float32)


def random_layers():
    return [
        keras.layers.RandAugment(value_range=(0, 255)),
        keras.layers.Pipeline([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2)]),
    ]


def test_same_seed_gives_the_same_image_alone_in_a_batch_and_in_a_parallel_map():
    augmentation = views.keras_layers(random_layers())
    images, seeds = noise(24), tf.range(24, dtype=tf.int64)
    augment = tf.function(augmentation, autograph=False)
    together = augment(images, seed=seeds).numpy()
    np.testing.assert_array_equal(together, augment(images, seed=seeds))
    for number in range(3):
        alone = augmentation(images[number], seed=number)
        np.testing.assert_allclose(alone, together[number], atol=1e-5)
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds))
    mapped = dataset.map(lambda x, s: augmentation(x, seed=s), num_parallel_calls=4)
    np.testing.assert_allclose(np.stack(list(mapped)), together, atol=1e-5)
    # Other layer objects with other initial states give the same images.
    again = views.keras_layers(random_layers())(images[:5], seed=seeds[:5])
    np.testing.assert_allclose(again, together[:5], atol=1e-5)


def test_images_of_a_batch_get_different_random_choices():
    same = tf.tile(noise(1), [24, 1, 1, 1])
    results = views.keras_layers(random_layers())(same, seed=tf.range(24, dtype=tf.int64)).numpy()
    assert len({result.tobytes() for result in results}) == 24
    assert results.shape == same.shape
    assert results.dtype == np.float32
    assert 0.0 <= results.min() < results.max() <= 1.0


@keras.saving.register_keras_serializable("tests")
class Threshold(keras.layers.Layer):
    """1 above 100, else 0, on the scale of the layer's input."""

    def call(self, images):
        return tf.cast(images > 100.0, images.dtype)


@pytest.mark.parametrize(
    ("value_range", "threshold"), [((0, 255), 100 / 255), ((0, 200.0), 0.5), ((-100, 300), 0.5)]
)
def test_layers_see_and_return_the_value_range(value_range, threshold):
    images = noise(3)
    augmentation = views.keras_layers([Threshold()], value_range=value_range)
    result = augmentation(images, seed=[1, 2, 3])
    low, high = value_range
    expected = ((images.numpy() > threshold) - low) / (high - low)
    np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=1e-6)


def test_layers_are_called_one_after_another_in_training_mode():
    layers = [keras.layers.Rescaling(0.5), keras.layers.Rescaling(1.0, offset=51.0)]
    images = noise(2)
    result = views.keras_layers(layers)(images, seed=[1, 2])
    np.testing.assert_allclose(result, 0.5 * images + 0.2, atol=1e-6)
    dropped = views.keras_layers([keras.layers.Dropout(0.5)])(images, seed=[1, 2]).numpy()
    assert 0.4 < np.mean(dropped == 0.0) < 0.6


@pytest.mark.parametrize("per_image", [True, False])
def test_keras_cv_layers_choose_per_image_in_a_parallel_map(per_image):
    layers = [keras_cv.layers.RandAugment(value_range=(0, 255)), keras_cv.layers.ChannelShuffle()]
    augmentation = views.keras_layers(layers, per_image=per_image)
    same = tf.tile(noise(1), [6, 1, 1, 1])
    # Some layers need AutoGraph, and batches are made without it.
    augment = tf.function(
        lambda x: augmentation(x, seed=tf.range(6, dtype=tf.int64)), autograph=False
    )
    mapped = tf.data.Dataset.from_tensors(same).repeat(4).map(augment, num_parallel_calls=4)
    results = np.concatenate(list(mapped))
    assert results.shape == (24, 16, 16, 3)
    assert len({result.tobytes() for result in results}) > 18
    assert 0.0 <= results.min() < results.max() <= 1.0


@pytest.mark.parametrize("brackets", ["", "()"])
def test_gin_file_gives_the_layers_with_and_without_brackets(brackets):
    config.parse(
        ["digits/supcon_keras_cv.gin"],
        [
            f"pretrain.run.augmentation = @views.keras_layers{brackets}",
            "views.keras_layers.per_image = True",
            "views.keras_layers.layers = (@keras.layers.RandomFlip(), @keras_cv.layers.Grayscale())",
            "keras_cv.layers.Grayscale.output_channels = 3",
        ],
    )
    # A deep copy evaluates a reference, as gin does when it calls pretrain.run.
    augmentation = copy.deepcopy(gin.query_parameter("pretrain.run.augmentation"))
    batches = pipeline.training_batches(
        sources.digits().train,
        preprocessing=views.Preprocessing(16),
        augmentation=augmentation,
        num_views=2,
        batch_size=8,
        num_classes=10,
        seed=0,
    )
    [(images, _)] = batches(1, 2)
    np.testing.assert_allclose(images[..., 0], images[..., 2], atol=1e-5)
    [(again, _)] = batches(1, 2)
    np.testing.assert_array_equal(images, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, r"keras_layers.layers must be a tuple of layers .* got \(\)"),
        ({"layers": keras.layers.RandomFlip()}, "must be a tuple of layers"),
        ({"layers": (keras.layers.RandomFlip,)}, "with brackets, such as"),
        ({"layers": "flip"}, "got 'flip'"),
        ({"value_range": (0,)}, r"value_range must be such as \(0, 255\), got \(0,\)"),
        ({"value_range": (255, 0)}, r"value_range\[1\] must be a number > 255, got 0"),
        ({"value_range": ("0", 255)}, r"value_range\[0\] must be a number, got '0'"),
    ],
)
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        views.keras_layers(**{"layers": (keras.layers.RandomFlip(),), **options})


def test_layer_that_changes_the_shape_is_rejected():
    augmentation = views.keras_layers([keras.layers.CenterCrop(8, 8, name="center")])
    with pytest.raises(UserError, match=r"got center: \(1, 16, 16, 3\) -> \(1, 8, 8, 3\)"):
        augmentation(noise(2), seed=[1, 2])


def test_multi_crop_batches_accept_the_class():
    class Darker(views.keras_layers):
        def __init__(self):
            super().__init__([keras.layers.Rescaling(0.0, offset=51.0)])

    batches = multi_crop.batches(
        sources.digits().train,
        preprocessing=views.Preprocessing(16),
        augmentation=Darker,
        num_views=3,
        crops=((16, 1, (0.5, 1.0)), (8, 2, (0.2, 0.5))),
        batch_size=4,
        num_classes=10,
        seed=0,
    )
    [(images, _)] = batches(0, 1)
    for crops in images.values():
        np.testing.assert_allclose(crops, np.full(crops.shape, 2 * 0.2 - 1), atol=1e-6)


class GlobalNoise(keras.layers.Layer):
    """Draws from Keras' global generator."""

    def call(self, images):
        return images + keras.random.uniform(keras.ops.shape(images))


@pytest.mark.parametrize(
    "layer", [GlobalNoise(name="state"), keras.layers.BatchNormalization(name="state")]
)
def test_layer_with_other_state_is_rejected(layer):
    with pytest.raises(UserError, match="and keep no other state, got state"):
        views.keras_layers([layer])(noise(2), seed=[1, 2])
