"""Momentum encoder and queue of keys: against loops, over replicas, and after a kill."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.losses import (
    NPairsLoss,
    ParametricSupConLoss,
    SimCLRLoss,
    SupConLoss,
    loss_input,
)
from supcon_tf.models import KeyMemory, MemoryLoss, find_memory, momentum_memory_model
from tests import reference
from tests.fitting import fit_steps
from tests.losses import family_reference
from tests.losses.gradients import relative_difference
from tests.replicas import two_replicas

SHAPE = (6, 6, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 3, *SHAPE)).astype(np.float32)
# Class 9 has one image, which has no positive but its own keys.
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 9] + [0, 1, 2, 3] * 4)


def small_model(*, num_views=2, seed=0, **options):
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(5, 3, name="conv"),
            keras.layers.BatchNormalization(synchronized=True, name="norm"),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name="encoder",
    )
    options = {"memory_size": 20, "momentum": 0.7, "projection": (4,), **options}
    model = momentum_memory_model(encoder, image_shape=SHAPE, num_views=num_views, **options)
    # With the head's initial weights, changes of the keys would be too small to see.
    kernel = models.model_parts(model)["projection_head"].trainable_variables[0]
    kernel.assign(RNG_OF_KERNEL)
    model.get_layer("key_encoder").part_weights[1][0].assign(RNG_OF_KERNEL)
    return model


RNG_OF_KERNEL = np.random.default_rng(1).normal(size=(5, 4))


def compiled(model):
    loss = MemoryLoss(SupConLoss(temperature=0.3), find_memory(model))
    model.compile(keras.optimizers.SGD(0.3, momentum=0.9), loss, jit_compile=False)
    return model


def values_of(variables):
    return [variable.numpy() for variable in variables]


def assert_all_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_queue_keeps_the_newest_keys_with_their_labels_in_order():
    memory = KeyMemory(20)
    memory.build((None, 2, 3))
    keys, labels = RNG.normal(size=(55, 3)).astype(np.float32), np.arange(55)
    assert not memory.is_filled().numpy().any()
    # The last push has more keys than the queue holds.
    for start, stop in ((0, 8), (8, 16), (16, 24), (24, 55)):
        memory.push(tf.constant(keys[start:stop]), tf.constant(labels[start:stop]))
        kept = min(stop, 20)
        assert memory.is_filled().numpy().tolist() == [False] * (20 - kept) + [True] * kept
        np.testing.assert_array_equal(memory.keys.numpy()[20 - kept :], keys[stop - kept : stop])
        np.testing.assert_array_equal(
            memory.labels.numpy()[20 - kept :], labels[stop - kept : stop]
        )
    assert memory.count.numpy() == 55


def test_8192_keys_of_128_numbers_are_4_mebibytes():
    memory = KeyMemory(8192)
    memory.build((None, 2, 128))
    assert memory.keys.value.dtype.size * memory.keys.shape.num_elements() == 4 * 2**20
    assert memory.num_bytes == 4 * 2**20 + 8192 * 8 + 8


@pytest.mark.parametrize("contrast", ["queue", "batch_and_queue"])
def test_losses_and_queue_equal_a_loop_over_steps(contrast):
    model = small_model(num_views=3, num_queries=2 if contrast == "queue" else 1, contrast=contrast)
    memory = find_memory(model)
    options = {"temperature": 0.3, "summation": "inside"}
    loss = MemoryLoss(SupConLoss(**options), memory)
    queue, queue_labels = [], []
    for start in range(0, 24, 8):
        labels = LABELS[start : start + 8]
        projected = model(IMAGES[start : start + 8], training=True)
        found = loss(labels, projected)
        rows = projected.numpy().astype(np.float64)
        queries, keys = rows[:, : memory.num_queries], rows[:, memory.num_queries :]
        new, new_labels = keys.reshape(-1, 4), np.repeat(labels, keys.shape[1])
        set_of, labels_of = list(queue), list(queue_labels)
        if contrast == "batch_and_queue":
            set_of, labels_of = [*new, *queue], [*new_labels, *queue_labels]
        expected = 0.0
        if set_of:
            each = reference.contrast_set_supcon_loss(
                labels, queries, labels_of, np.array(set_of), **options
            )
            has_positive = np.isin(labels, labels_of)
            assert contrast == "batch_and_queue" or not has_positive.all() or start == 16
            expected = each[0].sum() / has_positive.sum()
        assert float(found) == pytest.approx(expected, rel=1e-5)
        queue, queue_labels = [*queue, *new][-20:], [*queue_labels, *new_labels][-20:]
        np.testing.assert_allclose(memory.keys.numpy()[-len(queue) :], queue, rtol=1e-6)
        np.testing.assert_array_equal(memory.labels.numpy()[-len(queue) :], queue_labels)


PARAMETRIC = {"alpha": 0.3, "beta": 0.8, "gamma": 0.5, "label_smoothing": 0.1}


def parametric_loop(labels, contrast_labels, contrast, prior, outputs):
    """The loss of a batch in float64, from the model's logits and projections [N, 3, 10 + 4]."""
    return family_reference.contrast_set_parametric(
        labels,
        outputs[:, :2, :10] + prior,
        outputs[:, :2, 10:],
        contrast_labels,
        contrast,
        temperature=0.3,
        **PARAMETRIC,
    ).mean()


@pytest.mark.parametrize("contrast", ["queue", "batch_and_queue"])
def test_parametric_with_memory_equals_a_loop_over_steps(contrast):
    options = {"num_views": 3, "num_queries": 2, "contrast": contrast}
    model = small_model(num_classes=10, parametric=True, **options)
    prior = np.log(np.arange(1, 11) / 55)
    memory = find_memory(model)
    loss = MemoryLoss(
        ParametricSupConLoss(10, temperature=0.3, log_prior=prior, **PARAMETRIC), memory
    )
    assert loss_input(loss) == "logits_and_projection"
    queue, queue_labels = np.zeros((0, 4)), []
    for start in range(0, 24, 8):
        outputs = model(IMAGES[start : start + 8], training=True)
        labels = LABELS[start : start + 8]
        joined = outputs["logits_and_projection"].numpy()
        np.testing.assert_array_equal(joined[:, 0, :10], outputs["logits"])
        np.testing.assert_array_equal(joined[:, 2, :10], np.zeros((8, 10)))
        new, set_of, labels_of = np.float64(joined[:, 2, 10:]), queue, queue_labels
        if contrast == "batch_and_queue":
            set_of, labels_of = np.concatenate([new, queue]), [*labels, *queue_labels]
        loop = functools.partial(parametric_loop, labels, labels_of, set_of, prior)
        with tf.GradientTape() as tape:
            values = tf.Variable(joined)
            found = loss(labels, values)
        assert float(found) == pytest.approx(loop(joined), rel=2e-5)
        if start == 8:
            # Keys get no gradient in training; here they are constants of the loop.
            slopes = reference.finite_differences(loop, joined.astype(np.float64))
            gradient = np.array(tape.gradient(found, values))
            assert relative_difference(gradient[:, :2], slopes[:, :2]) <= 2e-5
        queue, queue_labels = np.concatenate([queue, new])[-20:], [*queue_labels, *labels][-20:]
        np.testing.assert_array_equal(memory.labels.numpy()[-len(queue) :], queue_labels)


def test_fit_trains_the_classifier_of_a_parametric_model_with_memory():
    model = small_model(num_classes=10, parametric=True)
    loss = MemoryLoss(ParametricSupConLoss(10, alpha=0.1), find_memory(model))
    model.compile("sgd", {"logits_and_projection": loss}, jit_compile=False)
    trained = models.model_parts(model)
    before = {name: values_of(part.trainable_variables) for name, part in trained.items()}
    model.fit(IMAGES[:, :2], {"logits_and_projection": LABELS}, batch_size=8, verbose=0)
    assert int(find_memory(model).count) == 24
    assert set(trained) == {"encoder", "projection_head", "classifier"}
    for name, part in trained.items():
        after = values_of(part.trainable_variables)
        assert any(np.abs(a - b).max() > 0 for a, b in zip(after, before[name], strict=True)), name


def test_a_parametric_memory_without_classes_is_rejected():
    with pytest.raises(UserError, match="parametric needs num_classes"):
        small_model(parametric=True)


def test_simclr_with_memory_equals_moco():
    model = small_model()
    loss = MemoryLoss(SimCLRLoss(temperature=0.2), find_memory(model))
    queue = np.zeros((0, 4))
    for start in range(0, 24, 8):
        projected = model(IMAGES[start : start + 8, :2], training=True).numpy()
        found = float(loss(None, projected))
        queries, keys = projected[:, 0].astype(np.float64), projected[:, 1].astype(np.float64)
        # The keys of other images in the batch are negatives, like the keys in the queue.
        scores = queries @ np.concatenate([keys, queue]).T / 0.2
        expected = np.mean([reference.log_sum_exp(row) - row[i] for i, row in enumerate(scores)])
        assert found == pytest.approx(expected, rel=1e-5)
        queue = np.concatenate([queue, keys])[-20:]


def test_key_weights_are_moving_averages_of_the_query_weights():
    model = compiled(small_model())
    key_encoder = model.get_layer("key_encoder")
    followed = [v for part in key_encoder.parts for v in part.trainable_variables]
    keys = [v for weights in key_encoder.part_weights for v in weights]
    assert len(keys) == 5
    expected = [value.astype(np.float64) for value in values_of(followed)]
    assert_all_equal(values_of(keys), values_of(followed))
    for start in range(0, 24, 8):
        query = values_of(followed)
        expected = [0.7 * k + 0.3 * q for k, q in zip(expected, query, strict=True)]
        model.train_on_batch(IMAGES[start : start + 8, :2], LABELS[start : start + 8])
        for found, wanted in zip(keys, expected, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(keys[0].numpy() - followed[0].numpy()).max() > 1e-3


def test_keys_have_their_own_batch_statistics():
    model = small_model()
    key_encoder = model.get_layer("key_encoder")
    encoder = models.model_parts(model)["encoder"]
    projected = model(IMAGES[:, :2], training=True).numpy()
    maps = encoder.get_layer("conv")(IMAGES[:, 1])
    mean, variance = np.mean(maps, axis=(0, 1, 2)), np.var(maps, axis=(0, 1, 2))
    pooled = np.mean((maps - mean) / np.sqrt(variance + 1e-3), axis=(1, 2))
    embedding = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    keys = reference.normalized(embedding @ RNG_OF_KERNEL)
    np.testing.assert_allclose(projected[:, 1], keys, rtol=1e-3, atol=1e-4)
    moving_mean = key_encoder.part_states[0][0].numpy()
    np.testing.assert_allclose(moving_mean, 0.01 * mean, rtol=1e-4, atol=1e-7)
    assert not np.allclose(moving_mean, encoder.get_layer("norm").moving_mean.numpy())


def test_no_gradient_reaches_the_keys():
    model = small_model(num_classes=4)
    loss = MemoryLoss(SupConLoss(), find_memory(model))
    images = tf.constant(IMAGES[:, :2])
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = loss(LABELS, model(images, training=True)["projection"])
    of_images, *of_weights = tape.gradient(value, [images, *model.trainable_variables])
    assert np.abs(of_images[:, 0]).min(axis=(1, 2, 3)).max() > 0
    np.testing.assert_array_equal(of_images[:, 1], np.zeros_like(IMAGES[:, 1]))
    # The probe's gradient does not come from the loss.
    assert [gradient is None for gradient in of_weights] == [False] * 5 + [True] * 2
    paths = [variable.path for variable in model.trainable_variables]
    assert not any("key_encoder" in path or "memory" in path for path in paths)


def test_evaluation_and_prediction_change_no_variable():
    model = compiled(small_model())
    model.fit(IMAGES[:, :2], LABELS, batch_size=8, verbose=0)
    before = values_of(model.variables)
    model.evaluate(IMAGES[:, :2], LABELS, batch_size=8, verbose=0)
    model.predict(IMAGES[:, :2], verbose=0)
    assert_all_equal(values_of(model.variables), before)


def test_key_weights_are_updated_in_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small_model(momentum=0.999)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    key_encoder = model.get_layer("key_encoder")
    (kernel, *_), query = key_encoder.part_weights[0], key_encoder.parts[0].variables[0]
    before = kernel.numpy()
    query.assign(before + 0.5)
    assert model(IMAGES[:, :2], training=True).dtype == tf.float32
    np.testing.assert_allclose(kernel.numpy() - before, 0.0005, rtol=1e-3)


def two_parts(model, folder, *, epochs):
    def batches(start, stop):
        numbers = np.arange(8 * start, 8 * stop) % 24
        data = tf.data.Dataset.from_tensor_slices((IMAGES[numbers, :2], LABELS[numbers]))
        return data.batch(8, drop_remainder=True)

    fit_steps(model, batches, folder, epochs=epochs, batch_size=8, num_examples=24)
    return values_of([*model.variables, *model.optimizer.variables])


def test_resumed_run_equals_an_uninterrupted_run_bit_for_bit(tmp_path):
    def built(seed):
        model = compiled(small_model(seed=seed))
        model.optimizer.build(model.trainable_variables)
        return model

    whole = two_parts(built(0), tmp_path / "whole", epochs=2)
    two_parts(built(0), tmp_path / "parts", epochs=1)
    # Other initial weights: the checkpoint has to replace them all.
    model = built(5)
    assert_all_equal(two_parts(model, tmp_path / "parts", epochs=2), whole)
    assert find_memory(model).count.numpy() == 48


def test_saved_model_keeps_its_key_encoder_and_its_queue(tmp_path):
    model = compiled(small_model(num_classes=None))
    model.fit(IMAGES[:, :2], LABELS, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_all_equal(values_of(loaded.variables), values_of(model.variables))
    # It follows the parts of the loaded model.
    assert loaded.get_layer("key_encoder").parts[0] is loaded.get_layer("embedding")
    with pytest.raises(UserError, match="compile the model again with MemoryLoss"):
        loaded.evaluate(IMAGES[:, :2], LABELS, verbose=0)
    for again in (model, loaded):
        compiled(again)
        again.fit(IMAGES[:, :2], LABELS, batch_size=8, shuffle=False, verbose=0)
    assert_all_equal(values_of(loaded.variables), values_of(model.variables))


@pytest.mark.parametrize("parametric", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_replicas_train_and_fill_the_queue_like_one_device(parametric):
    def trained(strategy):
        with strategy.scope():
            model = small_model(num_classes=10 if parametric else None, parametric=parametric)
            optimizer = keras.optimizers.SGD(0.3, momentum=0.9)
            optimizer.build(model.trainable_variables)
            loss = ParametricSupConLoss(10) if parametric else SupConLoss(temperature=0.3)
            loss = MemoryLoss(loss, find_memory(model))

        def on_replica(images, labels):
            with tf.GradientTape() as tape:
                outputs = model(images, training=True)
                value = loss(labels, outputs["logits_and_projection"] if parametric else outputs)
            gradients = tape.gradient(value, model.trainable_weights)
            optimizer.apply(gradients, model.trainable_weights)

        step = tf.function(lambda batch: strategy.run(on_replica, args=batch))
        data = tf.data.Dataset.from_tensor_slices((IMAGES[:, :2], LABELS)).batch(8).repeat(2)
        for batch in strategy.experimental_distribute_dataset(data):
            step(batch)
        return model

    strategy = two_replicas()
    alone, together = trained(tf.distribute.get_strategy()), trained(strategy)
    for one, other in zip(alone.variables, together.variables, strict=True):
        # The bias before the normalisation only has rounding errors, of some 1e-6.
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)
    memory = find_memory(together)
    np.testing.assert_array_equal(memory.labels.numpy(), find_memory(alone).labels.numpy())
    # Every replica has the same queue and the same key encoder.
    kept = [*memory.variables, *together.get_layer("key_encoder").variables]
    for variable in kept:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_the_losses_of_a_model_must_have_its_queue():
    model = small_model()
    for loss, message in (
        (SupConLoss(), "never fills it without a MemoryLoss"),
        (MemoryLoss(SupConLoss(), find_memory(small_model())), "the queue of another model"),
    ):
        model.compile("sgd", loss, jit_compile=False)
        with pytest.raises(UserError, match=message):
            model.fit(IMAGES[:, :2], LABELS, verbose=0)


def test_options_out_of_range_are_rejected():
    encoder = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    for options, message in (
        ({"num_queries": 2}, "below num_views = 2, got 2"),
        ({"num_queries": 0}, "num_queries must be an integer >= 1, got 0"),
        ({"memory_size": 0}, "memory_size must be an integer >= 1, got 0"),
        ({"momentum": 1.5}, "momentum must be a number >= 0 and <= 1, got 1.5"),
        ({"contrast": "batch"}, "contrast must be one of .* got 'batch'"),
    ):
        with pytest.raises(UserError, match=message):
            momentum_memory_model(encoder, image_shape=SHAPE, projection=(4,), **options)
    memory = KeyMemory(8, contrast="queue")
    for loss, message in (
        (SimCLRLoss(), "positives in the batch, got contrast = 'queue'"),
        (NPairsLoss(), "a SimCLRLoss or a ParametricSupConLoss, got NPairsLoss"),
        (SupConLoss(positives_cap=2), "positives_cap must be None with a memory, got 2"),
        (SupConLoss(implementation="streaming"), "must be 'dense' with a memory, got 'streaming'"),
    ):
        with pytest.raises(UserError, match=message):
            MemoryLoss(loss, memory)
    memory.build((None, 2, 4))
    for labels, message in ((None, "got None"), (np.ones((3, 5)), r"got shape \(3, 5\)")):
        with pytest.raises(UserError, match=f"takes class numbers .*{message}"):
            MemoryLoss(SupConLoss(), memory)(labels, tf.ones([3, 2, 4]))
