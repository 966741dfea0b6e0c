"""The sum of an unlabelled and a labelled loss: values, edge cases, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import CrossEntropyLoss, SemiSupervisedLoss, SimCLRLoss, SuNCEtLoss
from tests import reference
from tests.losses.test_suncet import features_of
from tests.replicas import two_replicas

# Each half has three labelled samples. Class 2 has one sample: no positive with one view.
LABELS = np.array([0, -1, 1, -1, 0, 1, 2, -1, -1, 0])


def sum_of_means(labels, features, *, weight=1.0):
    """The loss and its gradient from the reference loops."""
    parts = (
        (labels < 0, lambda rows: reference.supcon(None, rows, scale_by_temperature=False), 1.0),
        (labels >= 0, lambda rows: reference.suncet(labels[labels >= 0], rows), weight),
    )
    total, gradient = 0.0, np.zeros(features.shape)
    for rows, loss_of, factor in parts:
        if rows.any():
            values, slopes = loss_of(features[rows])
            # Both loops return exactly zero for samples without positives, and only for these.
            counted = np.count_nonzero(values)
            total += factor * values.sum() / counted
            gradient[rows] += factor * slopes / counted
    return total, gradient


def loss_and_gradient(loss, labels, features):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = loss(labels, features)
    return float(value), tf.convert_to_tensor(tape.gradient(value, features)).numpy()


def test_the_loss_is_the_sum_of_both_means():
    features = features_of(10, 2)
    loss = SemiSupervisedLoss(unlabelled=SimCLRLoss(implementation="dense"), weight=0.3)
    # Keras passes labels as [N, 1], and the batch size may be unknown.
    in_graph = tf.function(
        loss.__call__,
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64), tf.TensorSpec([None, 2, 8], tf.float32)
        ],
    )  # fmt: skip
    all_unlabelled, all_labelled = np.full(10, -1), np.abs(LABELS)
    for labels in (LABELS, all_unlabelled, all_labelled):
        expected, expected_gradient = sum_of_means(labels, features, weight=0.3)
        value, gradient = loss_and_gradient(loss, labels, features)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(in_graph(labels[:, None], features), expected, rtol=1e-5)


def test_the_labelled_mean_excludes_samples_without_positives():
    features = features_of(10, 1)
    loss = SemiSupervisedLoss(unlabelled=None)
    labelled = LABELS >= 0
    values = reference.suncet(LABELS[labelled], features[labelled])[0]
    assert np.count_nonzero(values) == 5
    np.testing.assert_allclose(loss(LABELS, features), values.sum() / 5, rtol=1e-5)


def test_a_part_may_be_none_or_another_loss():
    features = features_of(10, 2)
    values = [
        float(SemiSupervisedLoss(**parts)(LABELS, features))
        for parts in ({}, {"unlabelled": None}, {"labelled": None})
    ]
    np.testing.assert_allclose(values[0], values[1] + values[2], rtol=1e-6)
    scores = features_of(10, 1)[:, 0]
    own = CrossEntropyLoss()(LABELS[LABELS >= 0], scores[LABELS >= 0])
    for loss in (
        SemiSupervisedLoss(unlabelled=None, labelled=CrossEntropyLoss()),
        CrossEntropyLoss(ignore_class=-1),
    ):
        np.testing.assert_allclose(loss(LABELS, scores), own, rtol=1e-6)


def test_ignored_labels_have_no_loss_and_no_gradient():
    scores = features_of(3, 1)[:, 0]
    loss = CrossEntropyLoss(ignore_class=-1, label_smoothing=0.1)
    value, gradient = loss_and_gradient(loss, np.array([-1, -1, -1]), scores)
    assert value == 0
    assert (gradient == 0).all()
    _, gradient = loss_and_gradient(loss, np.array([-1, 4, -1]), scores)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[1] != 0).all()


def test_two_replicas_with_different_shares_of_labels_give_the_loss_and_gradient_of_one():
    order = np.argsort(LABELS)
    labels, features = LABELS[order], features_of(10, 2)[order]
    dense = {"implementation": "dense"}
    loss = SemiSupervisedLoss(
        unlabelled=SimCLRLoss(**dense), labelled=SuNCEtLoss(**dense), weight=0.5
    )
    value, gradient = loss_and_gradient(loss, labels, features)
    strategy = two_replicas()
    kernel_of_one = np.eye(8, dtype=np.float32)
    with strategy.scope():
        kernel = tf.Variable(kernel_of_one)
    parts = [(tf.constant(part), tf.constant(rows)) for part, rows in zip(
        np.split(labels, 2), np.split(features, 2), strict=True)]  # fmt: skip

    def step(part):
        with tf.GradientTape() as tape:
            replica_loss = loss(part[0], part[1] @ kernel)
        slope = tape.gradient(replica_loss, kernel)
        context = tf.distribute.get_replica_context()
        return context.all_reduce("SUM", [replica_loss, slope])

    @tf.function(autograph=False)
    def on_replicas():
        part = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )
        return strategy.run(step, args=(part,))

    total, slope = (strategy.experimental_local_results(x)[0].numpy() for x in on_replicas())
    np.testing.assert_allclose(total, value, rtol=1e-5)
    # For rows @ I, the kernel's gradient is rows^T times the rows' gradient.
    expected = np.einsum("nvd,nve->de", features, gradient)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)


def test_the_parts_are_restored_from_the_config():
    loss = SemiSupervisedLoss(
        unlabelled=SimCLRLoss(temperature=0.3),
        labelled=SuNCEtLoss(temperature=0.2),
        weight=0.5,
        name="mine",
    )
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert restored.get_config() == loss.get_config()
    assert restored.unlabelled.options["temperature"] == 0.3
    assert set(loss.get_config()) == set(SemiSupervisedLoss.__init__.__annotations__) - {"return"}
    alone = SemiSupervisedLoss(unlabelled=None)
    assert keras.losses.deserialize(keras.losses.serialize(alone)).unlabelled is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SemiSupervisedLoss(weight=-1.0), "weight must be a number >= 0, got -1.0"),
        (
            lambda: SemiSupervisedLoss(unlabelled=None, labelled=None),
            "must be given, got None for both",
        ),
        (
            lambda: SemiSupervisedLoss()(np.eye(3), features_of(3, 2)),
            r"integers \[N\], got float64 of shape \(3, 3\)",
        ),
        (lambda: SemiSupervisedLoss()([0.0, 1.0], features_of(2, 2)), "integers .* got float32"),
    ],
)
def test_invalid_options_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
