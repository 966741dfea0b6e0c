"""Streaming SupCon compared with float64, in tiles of 16 rows so that small batches have several."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.losses import SupConLoss, pairs, supcon_loss
from supcon_tf.losses.streaming import tiles
from tests import reference
from tests.replicas import two_replicas


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 16 rows. A traced shape keeps its tile size: use each shape with one size only."""
    monkeypatch.setattr(tiles, "MAX_TILE_ROWS", 16)


def features_of(num_samples, num_views=2, dim=6):
    rng = np.random.default_rng(num_samples)
    return rng.normal(size=(num_samples, num_views, dim)).astype(np.float32)


def class_numbers(num_samples):
    """Unbalanced classes, some with a single sample."""
    return np.random.default_rng(0).geometric(0.3, num_samples)


def multi_hot(num_samples):
    labels = np.random.default_rng(0).random((num_samples, 5)) < 0.2
    labels[0] = False
    return labels.astype(np.float32)


def value_and_gradient(labels, features, weights=1.0, function=supcon_loss, **options):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        values = function(labels, features, **{"implementation": "streaming", **options})
        total = tf.reduce_sum(weights * values)
    return values.numpy(), tape.gradient(total, features).numpy()


def assert_near(actual, expected, tolerance):
    """Bounds, for each pair, the largest difference relative to the largest expected number."""
    for one, other in zip(actual, expected, strict=True):
        assert np.max(np.abs(one - other)) <= tolerance * np.max(np.abs(other))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("summation", ["outside", "inside"])
@pytest.mark.parametrize("denominator", ["all", "one_positive", "only_negatives"])
@pytest.mark.parametrize(("anchors", "num_views"), [("all_views", 3), ("one_view", 2)])
def test_every_option_equals_the_float64_loop(summation, denominator, anchors, num_views):
    features = features_of(14, num_views)
    options = {"summation": summation, "denominator": denominator, "anchors": anchors}
    all_kinds = (class_numbers(14), None, multi_hot(14))
    for labels in all_kinds if anchors == "all_views" else all_kinds[:1]:
        assert_near(
            value_and_gradient(labels, features, **options),
            reference.supcon(labels, features, **options),
            1e-5,
        )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("normalize", [True, False])
def test_samples_of_one_view_without_positives_have_value_and_gradient_zero(normalize):
    features, labels = features_of(40, 1), class_numbers(40)
    alone = np.bincount(labels)[labels] == 1
    assert alone.any()
    actual = value_and_gradient(labels, features, normalize=normalize)
    assert (actual[0][alone] == 0).all()
    assert_near(actual, reference.supcon(labels, features, normalize=normalize), 1e-5)
    for summation in ("outside", "inside"):
        actual = value_and_gradient(None, features, summation=summation, normalize=normalize)
        assert (actual[0] == 0).all()
        assert (actual[1] == 0).all()


@pytest.mark.usefixtures("small_tiles")
def test_each_sample_uses_its_upstream_gradient():
    features, labels = features_of(20), class_numbers(20)
    weights = np.linspace(-1, 2, 20).astype(np.float32)
    for options in ({}, {"summation": "inside", "denominator": "one_positive"}):
        assert_near(
            value_and_gradient(labels, features, weights, **options),
            value_and_gradient(labels, features, weights, **options, implementation="dense"),
            1e-5,
        )


def outside_in_float64(labels, rows, temperature):
    """Eq. 2 and its gradient from float64 matrices, for more rows than the loops can handle."""
    rows = np.asarray(rows, np.float64)
    units = reference.normalized(rows)
    similarity = units @ units.T / temperature
    others = ~np.eye(len(rows), dtype=bool)
    exponentials = np.exp(similarity) * others
    denominators = exponentials.sum(1, keepdims=True)
    positives = (labels[:, None] == labels) & others
    share = positives / np.maximum(positives.sum(1, keepdims=True), 1)
    defined = positives.any(1)
    losses = defined * (np.log(denominators[:, 0]) - (share * similarity).sum(1))
    slopes = defined[:, None] * (exponentials / denominators - share)
    gradient = (slopes + slopes.T) @ units / temperature
    return losses, reference.through_normalization(gradient, rows)


LABELS = {
    "same": np.zeros(2100, int),
    "different": np.arange(2100) // 2,
    "unbalanced": class_numbers(2100),
}


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("labels", list(LABELS))
def test_gradients_of_thousands_of_rows_stay_within_2e_5_of_float64(temperature, labels):
    rows = features_of(2100, 1, dim=64)
    options = {"temperature": temperature, "scale_by_temperature": False}
    values, gradient = value_and_gradient(LABELS[labels], rows, **options)
    expected = outside_in_float64(LABELS[labels], rows[:, 0], temperature)
    assert_near((values, gradient[:, 0]), expected, 2e-5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("anchors", "num_samples"),
    # test_family.py compiles the kernel of "one_view" with other losses.
    [("all_views", 17), pytest.param("one_view", 9, marks=pytest.mark.slow)],
)
def test_compiled_execution_equals_eager_for_any_number_of_rows(anchors, num_samples):
    features, labels = features_of(num_samples), class_numbers(num_samples)
    compiled = tf.function(supcon_loss, jit_compile=True)
    assert_near(
        value_and_gradient(labels, features, function=compiled, anchors=anchors),
        value_and_gradient(labels, features, anchors=anchors),
        1e-5,
    )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    # The test below has "one_view" with a batch of unknown size.
    "anchors",
    ["all_views", pytest.param("one_view", marks=pytest.mark.slow)],
)
def test_a_batch_of_unknown_size_gives_the_same_numbers(anchors):
    def loss(labels, features):
        return supcon_loss(labels, features, anchors=anchors, implementation="streaming")

    spec = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2, 6])]
    unknown = tf.function(loss, input_signature=spec)
    assert unknown(np.zeros(0, np.int64), np.zeros((0, 2, 6), np.float32)).shape == [0]
    for num_samples in (8, 21):
        labels, features = class_numbers(num_samples), features_of(num_samples)
        assert_near(
            value_and_gradient(labels, features, function=lambda y, x, **_: unknown(y, x)),
            value_and_gradient(labels, features, anchors=anchors),
            1e-6,
        )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("anchors", [pytest.param("all_views", marks=pytest.mark.slow), "one_view"])
def test_streaming_equals_dense_for_an_unknown_number_of_classes(anchors):
    spec = [tf.TensorSpec([None, None]), tf.TensorSpec([None, 2, 6])]
    unknown = tf.function(
        lambda y, x: supcon_loss(y, x, anchors=anchors, implementation="streaming"),
        input_signature=spec,
    )
    labels, features = multi_hot(21), features_of(21)
    assert_near(
        value_and_gradient(labels, features, function=lambda y, x, **_: unknown(y, x)),
        value_and_gradient(labels, features, anchors=anchors, implementation="dense"),
        1e-5,
    )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    # test_family.py has the kernel of "inside" on replicas, with other losses.
    "summation",
    ["outside", pytest.param("inside", marks=pytest.mark.slow)],
)
def test_two_replicas_give_the_gradient_of_one_on_the_whole_batch(summation):
    features, labels = features_of(24), class_numbers(24)

    @tf.function
    def on_replica():
        start = 12 * tf.distribute.get_replica_context().replica_id_in_sync_group
        local = tf.constant(features)[start : start + 12]
        with tf.GradientTape() as tape:
            tape.watch(local)
            values = supcon_loss(
                tf.constant(labels)[start : start + 12],
                local,
                summation=summation,
                implementation="streaming",
            )
        return values, tape.gradient(values, local)

    strategy = two_replicas()
    values, gradient = (
        np.concatenate(strategy.experimental_local_results(result))
        for result in strategy.run(on_replica)
    )
    assert_near((values, gradient), value_and_gradient(labels, features, summation=summation), 1e-5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("denominator", ["all", "only_negatives"])
@pytest.mark.parametrize("summation", ["outside", "inside"])
def test_logits_of_ten_thousand_equal_the_float64_loop(denominator, summation):
    features = np.float32(30) * features_of(12)
    options = {"summation": summation, "denominator": denominator, "normalize": False}
    assert_near(
        value_and_gradient(class_numbers(12), features, **options),
        reference.supcon(class_numbers(12), features, **options),
        1e-5,
    )


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("temperature", [0.02, 0.03])
def test_small_temperatures_equal_the_float64_loop(temperature):
    features, labels = features_of(12), class_numbers(12)
    assert_near(
        value_and_gradient(labels, features, temperature=temperature),
        reference.supcon(labels, features, temperature=temperature),
        1e-5,
    )


@pytest.mark.usefixtures("small_tiles")
def test_a_variable_temperature_gets_its_gradient():
    features, labels = features_of(12), class_numbers(12)
    temperature = tf.Variable(0.2)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(
            supcon_loss(labels, features, temperature=temperature, implementation="streaming")
        )
    slope = reference.finite_differences(
        lambda moved: reference.supcon(labels, features, temperature=float(moved))[0].sum(), 0.2
    )
    np.testing.assert_allclose(tape.gradient(total, temperature), slope, rtol=1e-4)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("normalize", [True, False])
def test_identical_opposite_and_zero_rows_have_finite_gradients(normalize):
    ones = np.ones((12, 1, 6), np.float32)  # A shape that other tests trace.
    for features in (
        np.concatenate([ones, ones], 1),
        np.concatenate([ones, -ones], 1),
        np.concatenate([ones, 0 * ones], 1),
    ):
        for denominator in ("all", "one_positive", "only_negatives"):
            for labels in (np.zeros(12, int), np.arange(12) // 4):
                values, gradient = value_and_gradient(
                    labels, features, denominator=denominator, normalize=normalize
                )
                assert np.isfinite(values).all()
                assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_normalized_features_cancels(scale):
    features, labels = features_of(12), class_numbers(12)
    values, gradient = value_and_gradient(labels, np.float32(scale) * features)
    expected = value_and_gradient(labels, features)
    assert_near((values, gradient * scale), expected, 1e-5)


@pytest.mark.usefixtures("small_tiles")
def test_bfloat16_features_give_the_float32_values_of_the_same_numbers():
    features = tf.cast(features_of(12), tf.bfloat16)
    values, gradient = value_and_gradient(class_numbers(12), features)
    assert values.dtype == np.float32
    assert gradient.dtype == tf.bfloat16.as_numpy_dtype
    expected = reference.supcon(class_numbers(12), tf.cast(features, tf.float64).numpy())
    np.testing.assert_allclose(values, expected[0], rtol=1e-5)


@pytest.mark.usefixtures("small_tiles")
def test_the_second_derivative_equals_the_dense_forms():
    labels, features = class_numbers(10), tf.constant(features_of(10))

    def curvature(implementation):
        with tf.GradientTape() as outer:
            outer.watch(features)
            with tf.GradientTape() as inner:
                inner.watch(features)
                values = supcon_loss(labels, features, implementation=implementation)
            slope = tf.reduce_sum(inner.gradient(values, features) ** 2)
        return outer.gradient(slope, features).numpy()

    assert_near([curvature("streaming")], [curvature("dense")], 1e-4)


@pytest.mark.usefixtures("small_tiles")
def test_the_graph_does_not_grow_with_the_batch():
    def num_nodes(num_samples):
        step = tf.function(lambda y, x: value_and_gradient_in_graph(y, x))
        spec = tf.TensorSpec([num_samples], tf.int64), tf.TensorSpec([num_samples, 2, 6])
        graph = step.get_concrete_function(*spec).graph.as_graph_def()
        return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)

    def value_and_gradient_in_graph(labels, features):
        values = supcon_loss(labels, features, implementation="streaming")
        return tf.gradients(values, features)

    # Above 1,000 tiles, as small constants are stored differently.
    assert num_nodes(32000) == num_nodes(16000)


MEMORY_SCRIPT = """
import tensorflow as tf
from supcon_tf.losses import SupConLoss

def peak_after(num_samples):
    features = tf.random.normal([num_samples, 1, 16])
    numbers = tf.range(num_samples) % 10
    for labels in (numbers, tf.one_hot(numbers, 10)):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = SupConLoss(implementation="streaming")(labels, features)
        tape.gradient(loss, features)
    # Unlike rusage, VmHWM does not include the parent's peak.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0])

print(-peak_after(1024) + peak_after(8192))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_streaming_8192_rows_needs_less_than_a_third_of_the_matrix():
    command = [sys.executable, "-c", MEMORY_SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    kibibytes = int(result.stdout)
    assert 0 < kibibytes < 8192**2 * 4 / 1024 / 3


def test_auto_streams_large_batches_and_batches_of_unknown_size(monkeypatch):
    streamed = []

    class Recorder(pairs.StreamingPairs):
        def __init__(self, labels, anchors, *others, **options):
            streamed.append(anchors.shape[0])
            super().__init__(labels, anchors, *others, **options)

    monkeypatch.setattr(pairs, "StreamingPairs", Recorder)
    monkeypatch.setattr(pairs, "_MAX_DENSE_SELF_CONTRAST", 8 * 8)
    loss = tf.function(supcon_loss)
    for num_samples in (4, 5, None):
        loss.get_concrete_function(
            tf.TensorSpec([num_samples], tf.int64), tf.TensorSpec([num_samples, 2, 6])
        )
    assert streamed == [5, None]
    supcon_loss(np.zeros(5, int), features_of(5), positives_cap=2)
    supcon_loss(None, features_of(5), positive_mask=np.eye(5, dtype=bool))
    # General streaming is slower and begins at larger batches.
    for options in (
        {"anchors": "one_view"},
        {"contrast_gradient": False},
        {"normalize": False},
        {"temperature": 0.02},
    ):
        supcon_loss(np.zeros(5, int), features_of(5), **options)
    assert streamed == [5, None]
    monkeypatch.setattr(pairs, "MAX_DENSE_GENERAL", 8 * 8)
    supcon_loss(np.zeros(5, int), features_of(5), normalize=False)
    assert streamed == [5, None, 5]


def test_streaming_with_a_positives_cap_is_rejected():
    message = "positives_cap needs implementation 'dense' or 'auto', got 2 with 'streaming'"
    with pytest.raises(ValueError, match=message):
        supcon_loss([0, 0], features_of(2), positives_cap=2, implementation="streaming")
    with pytest.raises(ValueError, match=message):
        SupConLoss(positives_cap=2, implementation="streaming")
