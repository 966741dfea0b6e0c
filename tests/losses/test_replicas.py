"""Ordinary Keras models on several replicas get the update and the logged loss of one device."""

import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from supcon_tf.losses import BinaryCrossEntropyLoss
from tests.losses import replica_fits
from tests.replicas import two_replicas


@pytest.mark.parametrize(
    "case",
    # The semi-supervised case has SuNCEt too.
    [
        pytest.param(case, marks=pytest.mark.slow) if case == "suncet" else case
        for case in replica_fits.CASES
    ],
)
def test_fit_on_two_replicas_equals_fit_on_one_device(case):
    assert replica_fits.difference_of(two_replicas(), case) < 3e-6


@pytest.mark.slow
def test_fit_on_four_replicas_equals_fit_on_one_device():
    command = [sys.executable, "-m", "tests.losses.replica_fits", "4", "supcon"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    case, difference = output.strip().rsplit(": ", 1)
    assert case == "supcon"
    assert float(difference) < 3e-6


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_replica_gradients_sum_to_the_gradient_of_the_global_reduction(reduction):
    loss = BinaryCrossEntropyLoss(reduction=reduction)
    weights = tf.constant([0.5, 2.0, 1.0, 0.0, 3.0])
    labels, inputs = tf.constant([[1], [0], [1], [1], [0]]), tf.linspace(-1.0, 2.0, 5)[:, None]

    def gradient(rows):
        kernel = tf.ones([1, 1])
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = loss(labels[rows], inputs[rows] @ kernel, weights[rows])
        return tf.squeeze(tape.gradient(value, kernel))

    @tf.function(autograph=False)
    def on_replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        begin, end = (tf.constant(bound)[number] for bound in ([0, 4], [4, 5]))
        return gradient(slice(begin, end))

    strategy = two_replicas()
    total = sum(strategy.experimental_local_results(strategy.run(on_replica)))
    assert float(total) == pytest.approx(float(gradient(slice(None))), rel=1e-6)


def test_a_symbolic_build_does_not_compute_the_loss():
    # Keras builds models of several replicas with invalid labels, the mean of the replicas'.
    with keras.SymbolicScope():
        assert BinaryCrossEntropyLoss()(tf.zeros([4]), tf.zeros([4, 3])).shape == []
        assert BinaryCrossEntropyLoss(reduction=None)(None, tf.zeros([4, 3])).shape == [4]
