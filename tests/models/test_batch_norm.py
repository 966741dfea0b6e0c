"""Fused batch normalisation against Keras', values, gradients and averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.models.batch_norm import BatchNormalization


def both(shape, **options):
    """Keras' layer and the fused one with the same random variables."""
    random = np.random.default_rng(0)
    layers = [kind(**options) for kind in (keras.layers.BatchNormalization, BatchNormalization)]
    for layer in layers:
        layer.build(shape)
    for variable, other in zip(*(layer.variables for layer in layers), strict=True):
        variable.assign(random.uniform(0.5, 2, variable.shape))
        other.assign(variable)
    return layers


def results(layer, inputs, training):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    weights = [variable.value for variable in layer.trainable_variables]
    gradients = tape.gradient(loss, [inputs, *weights])
    return [outputs, *gradients, *(variable.value for variable in layer.variables)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (16, 3), (8, 7, 3), (1, 3)])
def test_values_gradients_and_moving_averages_equal_keras(shape, training):
    inputs = tf.random.stateless_normal(shape, [1, 2]) * 3 + 1
    layers = both(shape, momentum=0.9, epsilon=1e-5, synchronized=True)
    for expected, value in zip(
        *(results(layer, inputs, training) for layer in layers), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


def test_frozen_unscaled_and_uncentered_layers_equal_keras():
    inputs = tf.random.stateless_normal((9, 4), [1, 2])
    for options in ({"scale": False}, {"center": False}, {"trainable": False}, {"axis": 1}):
        for expected, value in zip(
            *(results(layer, inputs, True) for layer in both((9, 4), **options)), strict=True
        ):
            np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)


def test_bfloat16_input_has_float32_statistics():
    inputs = tf.cast(tf.random.stateless_normal((64, 4, 4, 2), [1, 2]), tf.bfloat16)
    layer = BatchNormalization(momentum=0.0, dtype="mixed_bfloat16")
    assert layer(inputs, training=True).dtype == tf.bfloat16
    exact = tf.cast(inputs, tf.float64).numpy()
    np.testing.assert_allclose(layer.moving_mean, exact.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, exact.var((0, 1, 2)), rtol=1e-4)


def test_unknown_batch_and_image_sizes_work():
    layer = BatchNormalization()
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layer(images))
    assert model.output_shape == (None, None, None, 3)
    step = tf.function(
        lambda values: model(values, training=True),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    np.testing.assert_allclose(tf.reduce_mean(step(tf.random.normal((4, 6, 5, 3)))), 0, atol=1e-5)


def test_axis_that_is_not_the_last_equals_keras():
    inputs = tf.random.stateless_normal((6, 3, 5, 5), [1, 2])
    for expected, value in zip(
        *(results(layer, inputs, True) for layer in both((6, 3, 5, 5), axis=1)), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)
