"""The training step of a stage: gradients of a batch in chunks, and clipping."""

import keras
import numpy as np
import pytest

from supcon_tf.losses import SupConLoss
from supcon_tf.models import contrastive_model
from supcon_tf.models.batch_norm import BatchNormalization
from supcon_tf.training.step import TrainingModel

PROBE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def encoder(batch_norm):
    images = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(8, 3)(images)
    x = BatchNormalization()(x) if batch_norm else x
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))


def one_step(*, batch_norm=False, optimizer=None, decay=False, **options):
    """Weights after a step, the model, and its logs."""
    keras.utils.set_random_seed(0)
    model = contrastive_model(
        encoder(batch_norm), image_shape=(6, 6, 3), projection=(16, 8), num_classes=3
    )
    if decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(0.1)
    trained = TrainingModel(model.input, model.output, **options)
    trained.compile(
        optimizer or keras.optimizers.SGD(0.5),
        {"projection": SupConLoss(), "logits": PROBE},
        metrics={"logits": ["accuracy"]},
    )
    views = np.random.default_rng(0).normal(size=(12, 2, 6, 6, 3)).astype(np.float32)
    labels = np.arange(12) % 3
    logs = trained.train_on_batch(views, {"projection": labels, "logits": labels}, return_dict=True)
    return [variable.numpy() for variable in trained.variables], model, logs


def largest_difference(some, others):
    return max(np.abs(a - b).max() for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("chunk", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_a_batch_in_chunks_gives_the_update_of_the_whole_batch(chunk):
    # A small rate keeps rounding errors below the bound.
    whole, _, logs = one_step(decay=True, optimizer=keras.optimizers.SGD(0.1))
    in_chunks, _, chunked_logs = one_step(
        decay=True, optimizer=keras.optimizers.SGD(0.1), gradient_cache_chunk=chunk
    )
    assert largest_difference(whole, in_chunks) <= 1e-6
    for name, value in logs.items():
        np.testing.assert_allclose(chunked_logs[name], value, rtol=1e-6)
    # The step changes the weights enough for a wrong gradient to show.
    assert largest_difference(whole, one_step(optimizer=keras.optimizers.SGD(0.0))[0]) > 1e-3


def test_the_step_equals_a_step_of_keras():
    keras.utils.set_random_seed(0)
    weights, _, _ = one_step(batch_norm=True)
    again = one_step(batch_norm=True, gradient_cache_chunk=12)[0]
    assert largest_difference(weights, again) <= 1e-6
    keras.utils.set_random_seed(0)
    plain = contrastive_model(
        encoder(True), image_shape=(6, 6, 3), projection=(16, 8), num_classes=3
    )
    plain.compile(keras.optimizers.SGD(0.5), {"projection": SupConLoss(), "logits": PROBE})
    views = np.random.default_rng(0).normal(size=(12, 2, 6, 6, 3)).astype(np.float32)
    labels = np.arange(12) % 3
    plain.train_on_batch(views, {"projection": labels, "logits": labels})
    assert largest_difference(weights, [v.numpy() for v in plain.variables]) <= 1e-6


def test_batch_normalisation_updates_its_averages_once_per_chunk():
    def moving_variance(chunk):
        _, model, _ = one_step(batch_norm=True, gradient_cache_chunk=chunk)
        (found,) = [v for v in model.variables if v.path.endswith("moving_variance")]
        return found.numpy()

    # The average moves from one towards the batch's variance, by 0.99 per chunk.
    once, thrice = moving_variance(12), moving_variance(4)
    np.testing.assert_allclose((1 - thrice) / (1 - once), 3, rtol=0.1)


def test_clipping_on_one_replica_equals_clipping_by_keras():
    clipped = one_step(clip_norm=0.01)[0]
    by_keras = one_step(optimizer=keras.optimizers.SGD(0.5, global_clipnorm=0.01))[0]
    assert largest_difference(clipped, by_keras) <= 1e-7
    assert largest_difference(clipped, one_step()[0]) > 1e-3
    # Loss scaling changes the norm of the gradients.
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=64)
    scaled = one_step(clip_norm=0.01, optimizer=scaling)[0]
    assert largest_difference(scaled, clipped) <= 1e-7


def test_a_float16_step_is_scaled_and_close_to_a_float32_one():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        # The first step would be skipped with the default scale of 2^15, which is too high for it.
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=64)
        weights, model, _ = one_step(batch_norm=True, gradient_cache_chunk=6, optimizer=optimizer)
    finally:
        keras.config.set_dtype_policy("float32")
    exact = one_step(batch_norm=True, gradient_cache_chunk=6)[0]
    # Weights and averages stay float32, and the step equals a float32 step up to rounding.
    assert {variable.dtype for variable in model.variables} == {"float32"}
    start = one_step(batch_norm=True, optimizer=keras.optimizers.SGD(0.0))[0]
    assert largest_difference(weights, exact) < 0.01 * largest_difference(start, exact)
