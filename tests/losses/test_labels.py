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
    with pytest.raises(UserError, match=r"must be whole numbers up to 2\^53; got values from"):
        loss(NUMBERS[:, None] + 0.5, outputs)
    # The first whole number that a dtype merges with its neighbour, and the next that it has.
    for dtype, bits in (("bfloat16", 8), ("float16", 11), ("float32", 24), ("float64", 53)):
        labels = tf.cast(np.full((6, 1), 2.0**bits + 2), dtype)
        with pytest.raises(UserError, match=rf"{dtype} labels \[N, 1\] .* up to 2\^{bits}; got"):
            loss(labels, outputs)
    with pytest.raises(UserError, match="must be integers"):
        loss(NUMBERS.astype(np.float32), outputs)


MIXED = 0.9 * ONE_HOT + 0.1 / 3
MEMBERSHIPS = r"label rows \[N, C\] must be 0 or 1: mixed or smoothed labels are weights, SoftSupConLoss takes them"
PER_VIEW = r"labels per view \[N, V\] are not supported, give one label per sample"
BINARY_PER_VIEW = np.stack([NUMBERS > 0] * 2, 1)
INVALID = {
    "supcon, mixed": (losses.SupConLoss(), PROJECTIONS, MIXED, MEMBERSHIPS),
    "supcon, per view": (losses.SupConLoss(), PROJECTIONS, np.stack([NUMBERS] * 2, 1), PER_VIEW),
    "supcon, two classes per view": (
        losses.SupConLoss(), PROJECTIONS, BINARY_PER_VIEW.astype(int), PER_VIEW
    ),
    "triplet, bool per view": (losses.TripletLoss(), PROJECTIONS, BINARY_PER_VIEW, PER_VIEW),
    "n-pairs, mixed": (losses.NPairsLoss(), PROJECTIONS[:, :1], MIXED, MEMBERSHIPS),
    "suncet, per view": (losses.SuNCEtLoss(), PROJECTIONS, np.stack([NUMBERS] * 2, 1), PER_VIEW),
    "suncet, scores": (losses.SuNCEtLoss(), PROJECTIONS, 2 * ONE_HOT, "probabilities that sum to 1"),
    "suncet, float multi-hot": (
        losses.SuNCEtLoss(), PROJECTIONS, 1 - ONE_HOT, "cast memberships to integers"
    ),
    "suncet, float per view": (
        losses.SuNCEtLoss(), PROJECTIONS, BINARY_PER_VIEW.astype(float), "sum to 1"
    ),
    "swav, no codes": (losses.SwAVLoss(), np.ones((6, 4, 3), np.float32), NUMBERS, "codes that sum to 1"),
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
    "cross-entropy, half a label": (
        losses.CrossEntropyLoss(), LOGITS, 0.5 * ONE_HOT, "probabilities that sum to 1"
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
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_graph(tf.constant(labels), outputs)


# XLA drops assertions. One case of each loss.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if name in ("SuNCEtLoss", "NPairsLoss") else case
        for name, case in {
            type(loss).__name__: case for case, (loss, *_) in INVALID.items()
        }.items()
    ],
)
def test_invalid_label_values_give_nan_with_xla(case):
    loss, outputs, labels, _ = INVALID[case]
    compiled = tf.function(lambda *args: loss(*args), autograph=False, jit_compile=True)
    with tf.GradientTape() as tape:
        outputs = tf.constant(outputs)
        tape.watch(outputs)
        value = compiled(tf.constant(labels), outputs)
    assert np.isnan(value)
    assert np.isnan(tape.gradient(value, outputs)).any()


def test_rows_of_two_classes_with_two_views_are_memberships():
    rows, numbers = np.eye(2)[NUMBERS % 2], NUMBERS % 2
    loss = losses.SupConLoss()
    np.testing.assert_allclose(loss(rows, PROJECTIONS), loss(numbers, PROJECTIONS), rtol=1e-6)
    # Samples without labels have no positives.
    assert loss(np.zeros((6, 2), int), PROJECTIONS) == 0


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
@pytest.mark.parametrize("variable", [tf.Variable, keras.Variable, tf.constant])
def test_a_variable_temperature_of_a_loss_class_is_rejected(loss, variable):
    with pytest.raises(UserError, match=r"temperature must be a number, got a (variable|tensor)"):
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


ALL_LOSSES = [
    *CLASS_NUMBER_LOSSES,
    (losses.TripletLoss(), PROJECTIONS),
    (losses.BinaryCrossEntropyLoss(), LOGITS),
]


@pytest.mark.parametrize(("loss", "outputs"), ALL_LOSSES, ids=lambda x: type(x).__name__)
def test_labels_of_an_unknown_number_of_samples_are_compared_at_run_time(loss, outputs):
    labels = ONE_HOT if isinstance(loss, losses.BinaryCrossEntropyLoss) else NUMBERS
    signature = [
        tf.TensorSpec([None, *labels.shape[1:]], labels.dtype),
        tf.TensorSpec([None, *outputs.shape[1:]]),
    ]
    in_graph = tf.function(lambda *args: loss(*args), signature, autograph=False)
    np.testing.assert_allclose(in_graph(labels, outputs), loss(labels, outputs), rtol=1e-5)
    # An operation of the loss may fail before the assertion.
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_graph(labels[:1], outputs)


@pytest.mark.parametrize(("loss", "outputs"), ALL_LOSSES, ids=lambda x: type(x).__name__)
def test_labels_that_are_no_array_of_numbers_are_rejected(loss, outputs):
    names = np.array([["cat"], ["dog"], ["cat"], ["cat"], ["dog"], ["dog"]])
    for labels in (names, names[:, 0], [[0], [0, 1], [0], [0], [0], [0]]):
        with pytest.raises(UserError, match="labels must be"):
            loss(labels, outputs)
    with pytest.raises(UserError, match=r"labels must be|must be rows"):
        loss(np.zeros((6, 0), np.float32), outputs)
    with pytest.raises(UserError, match="must be an array of numbers"):
        loss(NUMBERS, [[[1.0, 2.0], [1.0]]])


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [pair for pair in ALL_LOSSES if pair[0].input == "logits"] + [CLASS_NUMBER_LOSSES[3]],
    ids=lambda x: type(x).__name__,
)
def test_losses_that_need_labels_reject_none(loss, outputs):
    with pytest.raises(UserError, match="labels must be given, got None"):
        loss(None, outputs)


@pytest.mark.parametrize("loss", [losses.CrossEntropyLoss(), losses.BinaryCrossEntropyLoss()])
def test_logits_must_be_rows(loss):
    with pytest.raises(UserError, match=r"logits must be \[N, C\]"):
        loss(NUMBERS, LOGITS[:, 0])


@pytest.mark.parametrize(("loss", "outputs"), ALL_LOSSES, ids=lambda x: type(x).__name__)
def test_sample_weights_of_another_length_are_rejected(loss, outputs):
    labels = ONE_HOT if isinstance(loss, losses.BinaryCrossEntropyLoss) else NUMBERS
    weights = np.arange(6.0, dtype=np.float32)
    by_column = loss(labels, outputs, weights[:, None])
    np.testing.assert_array_equal(by_column, loss(labels, outputs, weights))
    for wrong in (weights[:1], weights[:5], np.ones((6, 2), np.float32)):
        with pytest.raises(UserError, match=r"must be one number per sample \[6\], got shape"):
            loss(labels, outputs, wrong)


WRONG_OPTIONS = [
    *((losses.SupConLoss, {"temperature": value}) for value in ("0.1", True, np.inf, [0.1])),
    *((losses.SupConLoss, {"temperature": value}) for value in (np.array([0.1]), None)),
    *((losses.SupConLoss, {"positives_cap": value}) for value in (2.0, True, "2", -2)),
    *((losses.SupConLoss, {name: "False"}) for name in ("normalize", "scale_by_temperature")),
    *((losses.SupConLoss, {name: 1}) for name in ("summation", "denominator", "anchors")),
    (losses.SimCLRLoss, {"scale_by_temperature": 1}),
    (losses.NPairsLoss, {"normalize": "False"}),
    (losses.TripletLoss, {"normalize": "False"}),
    (losses.SuNCEtLoss, {"normalize": "False"}),
    *((losses.SuNCEtLoss, {"label_smoothing": value}) for value in ("0.1", True, 1.0)),
    *((losses.CrossEntropyLoss, {"label_smoothing": value}) for value in ("0.1", None, 1.0)),
    *((losses.CrossEntropyLoss, {"ignore_class": value}) for value in ("1", 1.0, True)),
    *((losses.LargeMarginSoftmaxLoss, {"margin": value}) for value in (2.0, "2", True, 5)),
    *((losses.LargeMarginSoftmaxLoss, {"annealing": value}) for value in ("5", -1, None)),
    *((losses.MarginAnnealing, {"steps": value}) for value in ("10", 0)),
    *((losses.SemiSupervisedLoss, {"weight": value}) for value in ("1", -1, None, np.nan)),
    *((losses.SwAVLoss, {"num_assigned": value}) for value in (2.0, 0)),
]


@pytest.mark.parametrize(("make", "option"), WRONG_OPTIONS, ids=str)
def test_options_of_a_wrong_type_are_rejected(make, option):
    (name,) = option
    with pytest.raises(UserError, match=f"^{name} must be"):
        make(**option)


def test_ignore_class_may_be_a_numpy_integer():
    losses.CrossEntropyLoss(ignore_class=np.int64(-1))


@pytest.mark.parametrize("dtype", ["float64", "int32", "bfloat16"])
def test_a_temperature_tensor_may_have_any_dtype(dtype):
    for loss in (losses.supcon_loss, losses.suncet_loss):
        expected = loss(NUMBERS, PROJECTIONS, temperature=1.0)
        value = loss(NUMBERS, PROJECTIONS, temperature=tf.constant(1, dtype))
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_a_loss_function_in_compile_is_told_to_be_a_class():
    # Keras casts the labels.
    model = keras.Sequential([keras.Input((2, 4)), keras.layers.Dense(4)])
    model.compile("sgd", losses.supcon_loss)
    with pytest.raises(UserError, match=r"give compile a loss class such as SupConLoss\(\)"):
        model.fit(PROJECTIONS, NUMBERS, verbose=0)


@pytest.mark.parametrize("make", [losses.SupConLoss, losses.CrossEntropyLoss, losses.SwAVLoss])
def test_unknown_reductions_are_rejected(make):
    with pytest.raises(UserError, match=r"reduction must be one of .* got 'avg'"):
        make(reduction="avg")


def test_the_loss_is_float32_whatever_the_default_of_keras(monkeypatch):
    expected = losses.SupConLoss()(NUMBERS, PROJECTIONS)
    keras.config.set_floatx("bfloat16")
    try:
        value = losses.SupConLoss()(NUMBERS, PROJECTIONS)
    finally:
        keras.config.set_floatx("float32")
    assert (value.dtype, float(value)) == (tf.float32, float(expected))


def test_a_temperature_tensor_must_be_a_scalar():
    with pytest.raises(UserError, match=r"temperature must be a scalar, got shape \(1,\)"):
        losses.supcon_loss(NUMBERS, PROJECTIONS, temperature=tf.constant([0.1]))


@pytest.mark.parametrize("value", [0, -0.1, np.float32(-0.1), np.float32(0), np.float64("nan")])
def test_temperatures_of_any_number_type_must_be_positive(value):
    for make in (losses.SupConLoss, losses.SuNCEtLoss, losses.SimCLRLoss):
        with pytest.raises(UserError, match="temperature must be a number > 0, got"):
            make(temperature=value)
