"""Codes and swapped predictions compared with float64 loops; edge cases and replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import SwAVLoss, sinkhorn_knopp, swav_loss
from tests import reference
from tests.replicas import two_replicas


def scores_of(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 4), (3, 10), (1, 5), (5, 1)])
@pytest.mark.parametrize(("epsilon", "rounds"), [(0.05, 3), (0.5, 1), (1.0, 10)])
def test_codes_equal_the_float64_loop(shape, epsilon, rounds):
    scores = scores_of(*shape)
    expected = reference.sinkhorn(scores, epsilon=epsilon, rounds=rounds)
    codes = sinkhorn_knopp(scores, epsilon=epsilon, rounds=rounds)
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-6)


def test_code_rows_sum_to_one_and_columns_converge_to_equal_sums():
    codes = sinkhorn_knopp(scores_of(12, 4), epsilon=0.3, rounds=200).numpy()
    np.testing.assert_allclose(codes.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(codes.sum(axis=0), 12 / 4, rtol=1e-4)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-8])
def test_a_tiny_epsilon_gives_finite_codes(epsilon):
    for scores in (scores_of(6, 4), np.ones((6, 4), np.float32), np.zeros((6, 4), np.float32)):
        codes = sinkhorn_knopp(scores, epsilon=epsilon).numpy()
        np.testing.assert_allclose(codes.sum(axis=1), 1.0, rtol=1e-5)


def test_queue_scores_enter_the_sums_and_get_no_codes():
    scores, queue = scores_of(5, 4), scores_of(7, 4, seed=1)
    joined = reference.sinkhorn(np.concatenate([scores, queue]))[:5]
    np.testing.assert_allclose(
        sinkhorn_knopp(scores, queue_scores=queue), joined, rtol=1e-4, atol=1e-6
    )
    alone = sinkhorn_knopp(scores, queue_scores=queue, use_queue=tf.constant(False))
    np.testing.assert_allclose(alone, reference.sinkhorn(scores), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_assigned", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_values_and_gradients_equal_the_float64_loop(num_assigned, temperature):
    scores = tf.constant(scores_of(6, 5, 4))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        values = swav_loss(scores, num_assigned=num_assigned, temperature=temperature)
    codes = np.stack([reference.sinkhorn(scores[:, a]) for a in range(num_assigned)], axis=1)
    expected, gradient = reference.swav(scores, codes, temperature=temperature)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_allclose(tape.gradient(values, scores), gradient, rtol=1e-3, atol=1e-5)


def test_the_reference_gradient_equals_finite_differences():
    scores, codes = scores_of(2, 3, 4), reference.sinkhorn(scores_of(4, 4)).reshape(2, 2, 4)
    slopes = reference.finite_differences(lambda at: reference.swav(at, codes)[0].sum(), scores)
    np.testing.assert_allclose(reference.swav(scores, codes)[1], slopes, rtol=1e-5, atol=1e-7)


def test_no_gradient_flows_into_the_codes():
    codes = tf.constant(scores_of(3, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch(codes)
        values = swav_loss(scores_of(3, 4, 4), codes)
        own = sinkhorn_knopp(codes[:, 0])
    assert tape.gradient((values, own), codes) is None


def test_two_replicas_give_the_codes_and_loss_of_one():
    scores = scores_of(6, 3, 4)
    whole = swav_loss(scores).numpy()
    strategy = two_replicas()
    parts = [tf.constant(part) for part in np.split(scores, 2)]

    @tf.function(autograph=False)
    def on_replicas():
        part = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )
        return strategy.run(lambda values: swav_loss(values), args=(part,))

    halves = strategy.experimental_local_results(on_replicas())
    np.testing.assert_allclose(np.concatenate(halves), whole, rtol=1e-5)


def test_the_loss_class_takes_codes_and_scores_in_one_tensor():
    scores, codes = scores_of(4, 3, 5), sinkhorn_knopp(scores_of(8, 5)).numpy().reshape(4, 2, 5)
    packed = np.concatenate([codes, scores], axis=1)
    expected = reference.swav(scores, codes, temperature=0.2)[0]
    np.testing.assert_allclose(SwAVLoss(temperature=0.2)(None, packed), expected.mean(), rtol=1e-5)


def test_the_loss_is_restored_from_its_config():
    loss = SwAVLoss(temperature=0.2, num_assigned=1, reduction="sum", name="mine")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert restored.get_config() == loss.get_config()
    assert set(loss.get_config()) == set(SwAVLoss.__init__.__annotations__) - {"return"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinkhorn_knopp([[1.0]], epsilon=0.0), "epsilon must be a number > 0, got 0.0"),
        (lambda: sinkhorn_knopp([[1.0]], rounds=0), "rounds must be an integer >= 1, got 0"),
        (
            lambda: swav_loss(scores_of(2, 2, 3), temperature=0.0),
            "temperature must be a number > 0, got 0",
        ),
        (lambda: swav_loss(scores_of(2, 1, 3), num_assigned=1), "must be >= 2, got 1 of 1"),
        (lambda: swav_loss(scores_of(2, 3, 4), num_assigned=5), "num_assigned .* got 5 of 3"),
        (
            lambda: swav_loss(scores_of(2, 3, 4), num_assigned=0),
            "num_assigned must be an integer >= 1, got 0",
        ),
        (
            lambda: swav_loss(scores_of(2, 3, 4)[0]),
            r"scores must be \[B, V, K\], got shape \(3, 4\)",
        ),
        (lambda: swav_loss(scores_of(2, 2, 3), scores_of(2, 2, 4)), r"got shapes \(2, 2, 3\) and"),
        (lambda: SwAVLoss(temperature=-1.0), "temperature must be a number > 0, got -1.0"),
        (lambda: SwAVLoss(num_assigned=0), "num_assigned must be an integer >= 1, got 0"),
    ],
)
def test_invalid_options_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
