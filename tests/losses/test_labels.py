"""Labels that the losses accept, how they read them, and labels that they reject."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses
from supcon_tf.errors import UserError

NUMBERS = np.array([0, 1, 1, 0, 2, 2])
ONE_HOT = np.eye(3)[NUMBERS]
PROJECTIONS = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
LOGITS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
MARGIN_OUTPUTS = np.stack([LOGITS, 2 + np.abs(LOGITS)], axis=-1)
CLASS_NUMBER_LOSSES = [
    (losses.SupConLoss(), PROJECTIONS),
    (losses.SuNCEtLoss(), PROJECTIONS),
    (losses.NPairsLoss(), PROJECTIONS[:, :1]),
    (losses.SemiSupervisedLoss(), PROJECTIONS),
    (losses.CrossEntropyLoss(), LOGITS),
    (losses.LargeMarginSoftmaxLoss(), MARGIN_OUTPUTS),
]


@pytest.mark.parametrize(("loss", "outputs"), CLASS_NUMBER_LOSSES, ids=lambda x: type(x).__name__)
def test_columns_of_whole_numbers_and_booleans_are_class_numbers(loss, outputs):
    # image_dataset_from_directory(label_mode="binary") returns float32 [N, 1].
    for numbers in (NUMBERS, NUMBERS > 0):
        expected = loss(tf.constant(numbers, tf.int64), outputs)
        np.testing.assert_array_equal(loss(numbers.astype(np.float32)[:, None], outputs), expected)
        np.testing.assert_array_equal(loss(numbers[:, None], outputs), expected)


@pytest.mark.parametrize(("loss", "outputs"), CLASS_NUMBER_LOSSES, ids=lambda x: type(x).__name__)
def test_fractions_are_not_class_numbers(loss, outputs):
    for labels in (NUMBERS[:, None] + 0.5, np.full((6, 1), 2.0**25)):
        with pytest.raises(UserError, match=r"must be whole numbers up to 2\^24; got values from"):
            loss(labels, outputs)
    with pytest.raises(UserError, match="must be integers"):
        loss(NUMBERS.astype(np.float32), outputs)


MIXED = 0.9 * ONE_HOT + 0.1 / 3
MEMBERSHIPS = (
    r"label rows \[N, C\] must be 0 or 1: mixed or smoothed labels are not class memberships"
)
PER_VIEW = r"must be 0 or 1: labels per view \[N, V\] are not supported, give one label per sample"
INVALID = {
    "supcon, mixed": (losses.SupConLoss(), PROJECTIONS, MIXED, MEMBERSHIPS),
    "supcon, per view": (losses.SupConLoss(), PROJECTIONS, np.stack([NUMBERS] * 2, 1), PER_VIEW),
    "n-pairs, mixed": (losses.NPairsLoss(), PROJECTIONS[:, :1], MIXED, MEMBERSHIPS),
    "suncet, per view": (losses.SuNCEtLoss(), PROJECTIONS, np.stack([NUMBERS] * 2, 1), PER_VIEW),
    "suncet, scores": (losses.SuNCEtLoss(), PROJECTIONS, 2 * ONE_HOT, r"must be in \[0, 1\]"),
    "cross-entropy, above": (
        losses.CrossEntropyLoss(), LOGITS, NUMBERS + 1, r"class numbers must be in \[0, 3\)"
    ),
    "cross-entropy, negative": (
        losses.CrossEntropyLoss(), LOGITS, NUMBERS - 1, r"class numbers must be in \[0, 3\)"
    ),
    "cross-entropy, ignored": (
        losses.CrossEntropyLoss(ignore_class=-1), LOGITS, NUMBERS - 2, "class numbers must be in"
    ),
    "cross-entropy, multi-hot": (
        losses.CrossEntropyLoss(), LOGITS, 1 - ONE_HOT, "several labels per image need Binary"
    ),
    "large margin, multi-hot": (
        losses.LargeMarginSoftmaxLoss(), MARGIN_OUTPUTS, 1 - ONE_HOT, "need BinaryCrossEntropyLoss"
    ),
    "binary, numbers": (
        losses.BinaryCrossEntropyLoss(), LOGITS[:, :1], NUMBERS, r"must be in \[0, 1\]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(INVALID))
def test_invalid_label_values_are_rejected(case):
    loss, outputs, labels, message = INVALID[case]
    with pytest.raises(UserError, match=message + ".*; got values from"):
        loss(labels, outputs)
    in_graph = tf.function(lambda labels, outputs: loss(labels, outputs), autograph=False)
    # TensorFlow's own check of class numbers, on CPUs only, may come first.
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{message}|outside the valid range"):
        in_graph(tf.constant(labels), outputs)


def test_contrast_labels_must_be_memberships():
    for labels, contrast_labels in ((MIXED, ONE_HOT), (ONE_HOT, MIXED)):
        with pytest.raises(UserError, match=MEMBERSHIPS):
            losses.contrast_set_supcon_loss(labels, PROJECTIONS, contrast_labels, PROJECTIONS[:, 0])


def test_suncet_takes_probabilities():
    assert float(losses.SuNCEtLoss()(MIXED, PROJECTIONS)) > 0


def test_cross_entropy_of_one_logit_is_rejected():
    with pytest.raises(UserError, match="of one score is always 0: use BinaryCrossEntropyLoss"):
        losses.CrossEntropyLoss()(np.zeros(6, int), LOGITS[:, :1])
    # -log sigmoid(0) for either label.
    for labels in (np.array([0, 1]), np.array([[0.0], [1.0]], np.float32)):
        value = losses.BinaryCrossEntropyLoss()(labels, tf.zeros([2, 1]))
        np.testing.assert_allclose(value, np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.SupConLoss, losses.SimCLRLoss, losses.SuNCEtLoss, losses.SwAVLoss]
)
@pytest.mark.parametrize("variable", [tf.Variable, keras.Variable])
def test_a_variable_temperature_of_a_loss_class_is_rejected(loss, variable):
    with pytest.raises(UserError, match="temperature must be a number, got a variable"):
        loss(temperature=variable(0.1))


def test_a_keras_variable_temperature_of_the_function_gets_its_gradient():
    temperature = keras.Variable(0.5)
    with tf.GradientTape() as tape:
        tape.watch(temperature.value)
        total = tf.reduce_sum(losses.supcon_loss(NUMBERS, PROJECTIONS, temperature=temperature))
    assert abs(float(tape.gradient(total, temperature.value))) > 0


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [*CLASS_NUMBER_LOSSES, (losses.BinaryCrossEntropyLoss(), LOGITS)],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("count", [1, 5])
def test_labels_of_another_number_of_samples_are_rejected(loss, outputs, count):
    one_label_per_sample = not isinstance(loss, losses.BinaryCrossEntropyLoss)
    for labels in (NUMBERS, ONE_HOT) if one_label_per_sample else (ONE_HOT,):
        if isinstance(loss, losses.SemiSupervisedLoss) and labels is ONE_HOT:
            continue  # It takes numbers only.
        with pytest.raises(UserError, match=rf"must agree in N, got {count} labels and 6 samples"):
            loss(labels[:count], outputs)


@pytest.mark.parametrize("value", [0, -0.1, np.float32(-0.1), np.float32(0), np.float64("nan")])
def test_temperatures_of_any_number_type_must_be_positive(value):
    for make in (losses.SupConLoss, losses.SuNCEtLoss, losses.SimCLRLoss):
        with pytest.raises(UserError, match="temperature must be > 0, got"):
            make(temperature=value)
