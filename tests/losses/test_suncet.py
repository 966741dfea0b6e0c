"""SuNCEt compared with float64 loops; edge cases and identities with SupCon."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from supcon_tf.losses import SuNCEtLoss, suncet, suncet_loss, supcon_loss
from tests import reference
from tests.losses.gradients import relative_difference, with_gradient


def features_of(num_samples, num_views, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_samples, num_views, dim)).astype(np.float32)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def labels_of(kind, num_samples, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, num_samples)
    if kind == "none":
        return None
    if kind == "ints":
        return ids
    if kind == "one_hot":
        return np.eye(3, dtype=np.float32)[ids]
    if kind == "multi_hot":
        return (rng.random((num_samples, 5)) < 0.3).astype(np.int32)
    soft = rng.dirichlet([0.5, 0.5, 0.5], num_samples).astype(np.float32)
    soft[0] = [0.25, 0.75, 0.0]
    soft[1] = 0
    return soft


value_and_gradient = with_gradient(suncet_loss)


@pytest.mark.parametrize("label_kind", ["none", "ints", "one_hot", "multi_hot", "soft"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("normalize", [True, False])
def test_values_and_gradients_equal_the_float64_loop(label_kind, num_views, temperature, normalize):
    features = 1.5 * features_of(7, num_views)
    labels = labels_of(label_kind, 7)
    has_rows = label_kind in ("one_hot", "multi_hot", "soft")
    for label_smoothing in (0.0, 0.1) if has_rows else (0.0,):
        options = {
            "temperature": temperature,
            "normalize": normalize,
            "label_smoothing": label_smoothing,
        }
        expected_values, expected_gradient = reference.suncet(labels, features, **options)
        # One case suffices for streaming: these options are applied before it.
        streams = normalize and temperature == 0.05 and num_views == 2
        for implementation in ("dense", "streaming")[: 1 + streams]:
            values, gradient = value_and_gradient(
                labels, features, implementation=implementation, **options
            )
            assert relative_difference(values, expected_values) <= 1e-5
            assert relative_difference(gradient, expected_gradient) <= 1e-5


@pytest.mark.parametrize("label_kind", ["ints", "multi_hot", "soft"])
def test_many_tiles_equal_the_whole_matrix(label_kind, monkeypatch):
    # Tiles of 16 rows, the last one padded, with known and unknown batch sizes.
    monkeypatch.setattr(suncet, "_MAX_TILE_SIMILARITIES", 16 * 74)
    labels, features = labels_of(label_kind, 37), features_of(37, 2)
    temperature = tf.Variable(0.3)

    def terms(function):
        rows = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = function(rows)
        return values, *tape.gradient(values, [temperature, rows])

    def loss(features, implementation):
        return suncet_loss(labels, features, temperature=temperature, implementation=implementation)

    dense = terms(lambda x: loss(x, "dense"))
    unknown = tf.function(
        lambda x: loss(x, "auto"), input_signature=[tf.TensorSpec([None, 2, 8], tf.float32)]
    )
    for streamed in (terms(lambda x: loss(x, "streaming")), terms(unknown)):
        np.testing.assert_allclose(streamed[0], dense[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(streamed[1], dense[1], rtol=1e-5)
        np.testing.assert_allclose(streamed[2], dense[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label_kind", ["ints", "soft"])
def test_the_reference_gradient_equals_finite_differences(label_kind):
    features = 3 * features_of(5, 2, dim=4)
    labels = labels_of(label_kind, 5)
    _, gradient = reference.suncet(labels, features)
    slopes = reference.finite_differences(
        lambda moved: reference.suncet(labels, moved)[0].sum(), features
    )
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label_kind", ["ints", "multi_hot"])
@pytest.mark.parametrize("num_views", [1, 2])
def test_supcon_inside_is_suncet_plus_the_logarithm_of_the_number_of_positives(
    label_kind, num_views
):
    features = features_of(8, num_views)
    labels = labels_of(label_kind, 8)
    classes = reference.label_sets(labels, 8)
    sharing = np.array([[bool(one & other) for other in classes] for one in classes])
    num_positives = num_views * sharing.sum(axis=1) - 1
    values, gradient = value_and_gradient(labels, features)
    inside, inside_gradient = value_and_gradient(
        labels, features, supcon_loss, summation="inside", scale_by_temperature=False
    )
    # Both are zero for samples without positives.
    expected = np.where(num_positives > 0, values + np.log(np.maximum(num_positives, 1)), 0)
    np.testing.assert_allclose(inside, expected, rtol=1e-5)
    np.testing.assert_allclose(inside_gradient, gradient, rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(0, 2**16), st.floats(0.05, 2.0))
def test_one_hot_probabilities_give_the_loss_of_the_class_numbers(
    num_samples, num_views, seed, temperature
):
    features = features_of(num_samples, num_views, seed=seed)
    labels = labels_of("ints", num_samples, seed=seed)
    numbers = value_and_gradient(labels, features, temperature=temperature)
    probabilities = value_and_gradient(
        np.eye(3, dtype=np.float32)[labels], features, temperature=temperature
    )
    np.testing.assert_allclose(probabilities[0], numbers[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities[1], numbers[1], rtol=1e-3, atol=1e-4)


def test_label_smoothing_equals_the_loss_of_smoothed_rows():
    features, one_hot = features_of(6, 2), labels_of("one_hot", 6)
    # 0.3 over three classes is 0.1 each.
    smoothed = 0.7 * one_hot + 0.1
    np.testing.assert_allclose(
        suncet_loss(one_hot, features, label_smoothing=0.3),
        suncet_loss(smoothed, features),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(
        suncet_loss(one_hot.astype(int), features, label_smoothing=0.3),
        suncet_loss(one_hot, features, label_smoothing=0.3),
    )


def test_equal_features_give_the_entropy_of_the_labels():
    # Of the 7 other rows 3 are positives; for class probabilities p is the mean of the others.
    features = np.ones((4, 2, 3), np.float32)
    np.testing.assert_allclose(
        suncet_loss([0, 0, 1, 1], features), np.full(4, np.log(7 / 3)), rtol=1e-6
    )
    halves = np.full((4, 2), 0.5, np.float32)
    np.testing.assert_allclose(suncet_loss(halves, features), np.full(4, np.log(2)), rtol=1e-6)


def test_the_sum_excludes_classes_of_no_other_row():
    features = features_of(3, 1)
    labels = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]], np.float32)
    # All other rows have class 0, so its probability is one; no other row has class 1.
    values, gradient = value_and_gradient(labels, features)
    np.testing.assert_allclose(values[0], 0.0, atol=1e-6)
    expected = reference.suncet(labels, features)
    np.testing.assert_allclose(values, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-5)


def test_a_sample_without_positives_has_value_and_gradient_zero():
    for labels in ([0, 1, 2], np.eye(3, dtype=np.float32), np.zeros((3, 2), np.float32)):
        values, gradient = value_and_gradient(labels, features_of(3, 1))
        assert (values == 0).all()
        assert (gradient == 0).all()
    values, _ = value_and_gradient([0, 1, 2, 2], features_of(4, 1))
    assert (values[:2] == 0).all()
    assert (values[2:] != 0).all()


def test_one_class_has_value_and_gradient_zero():
    for num_views in (1, 2):
        values, gradient = value_and_gradient([3, 3, 3], features_of(3, num_views))
        assert (values == 0).all()
        assert (gradient == 0).all()


EXTREMES = {
    "identical": np.ones((6, 2, 4), np.float32) / 2,
    "zero": np.zeros((6, 2, 4), np.float32),
    "opposite": np.stack([np.ones((6, 4)), -np.ones((6, 4))], 1).astype(np.float32),
    "logits of 1e4": features_of(6, 2, dim=4) * np.float32(np.sqrt(1e3)),
    "logits of 1e10": features_of(6, 2, dim=4) * np.float32(np.sqrt(1e9)),
}


@pytest.mark.parametrize("case", list(EXTREMES))
@pytest.mark.parametrize("normalize", [True, False])
def test_values_and_gradients_are_finite_for_extreme_features(case, normalize):
    ids = [0, 0, 0, 1, 1, 2]
    empty = np.zeros((6, 3), np.float32)
    for labels in (None, [0] * 6, ids, empty, np.eye(3)[ids], labels_of("soft", 6)):
        values, gradient = value_and_gradient(labels, EXTREMES[case], normalize=normalize)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("label_kind", ["ints", "one_hot"])
def test_logits_of_1e4_equal_the_float64_loop(label_kind):
    features, labels = EXTREMES["logits of 1e4"], labels_of(label_kind, 6)
    values, gradient = value_and_gradient(labels, features, normalize=False)
    expected = reference.suncet(labels, features, normalize=False)
    assert expected[0].max() > 1e3
    assert relative_difference(values, expected[0]) <= 1e-5
    assert relative_difference(gradient, expected[1]) <= 1e-5


def test_labels_above_two_to_the_24_stay_different():
    large = 2**24
    features = features_of(4, 1)
    labels = tf.constant([large, large + 1, large, large + 1], tf.int64)
    apart = SuNCEtLoss()(tf.constant([0, 1, 0, 1]), features)
    np.testing.assert_allclose(SuNCEtLoss()(labels, features), apart)
    assert float(apart) > 1e-3
    assert float(SuNCEtLoss()(tf.constant([0, 0, 0, 0]), features)) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("label_kind", ["ints", "soft"])
def test_any_float_dtype_gives_the_float32_values_of_the_same_numbers(dtype, label_kind):
    features = tf.cast(features_of(6, 2), dtype)
    labels = labels_of(label_kind, 6)
    values = suncet_loss(labels, features)
    assert values.dtype == tf.float32
    expected = reference.suncet(labels, tf.cast(features, tf.float64).numpy())[0]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    _, gradient = value_and_gradient(labels, features)
    assert gradient.dtype == features.dtype.as_numpy_dtype


# The tests of tiles have graphs of all kinds of labels.
@pytest.mark.parametrize(
    ("jit_compile", "label_kind"), [(False, "none"), (True, "ints"), (True, "soft")]
)
def test_graph_and_compiled_execution_equal_eager(jit_compile, label_kind):
    labels, features = labels_of(label_kind, 6), features_of(6, 2)
    compiled = tf.function(
        lambda x: suncet_loss(labels, x),
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([6 if jit_compile else None, 2, 8], tf.float32)],
    )
    values, gradient = value_and_gradient(labels, features, lambda _, x: compiled(x))
    expected = value_and_gradient(labels, features)
    np.testing.assert_allclose(values, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label_kind", ["multi_hot", "soft"])
def test_streaming_equals_dense_for_an_unknown_number_of_classes(label_kind):
    labels, features = labels_of(label_kind, 21), features_of(21, 2)
    spec = [tf.TensorSpec([None, None], labels.dtype), tf.TensorSpec([None, 2, 8], tf.float32)]
    unknown = tf.function(
        lambda y, x: suncet_loss(y, x, implementation="streaming"), input_signature=spec
    )
    values, gradient = value_and_gradient(labels, features, unknown)
    expected = value_and_gradient(labels, features, implementation="dense")
    np.testing.assert_allclose(values, expected[0], rtol=1e-5, atol=1e-6)
    assert relative_difference(gradient, expected[1]) <= 1e-5


@settings(max_examples=10, deadline=None)
@given(
    st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**16), st.sampled_from(["ints", "soft"])
)
def test_loss_is_invariant_to_batch_order(num_samples, num_views, seed, label_kind):
    features = features_of(num_samples, num_views, seed=seed)
    labels = labels_of(label_kind, num_samples, seed=seed)
    order = np.random.default_rng(seed).permutation(num_samples)
    np.testing.assert_allclose(
        suncet_loss(labels[order], features[order]),
        suncet_loss(labels, features).numpy()[order],
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_mean_excludes_samples_without_positives():
    features, labels = features_of(5, 1), np.array([0, 0, 1, 1, 2])
    values = reference.suncet(labels, features)[0]
    np.testing.assert_allclose(SuNCEtLoss()(labels, features), values[:4].mean(), rtol=1e-5)
    # With smoothing the last sample shares every class with the others.
    one_hot = np.eye(3)[labels]
    values = reference.suncet(one_hot, features, label_smoothing=0.1)[0]
    np.testing.assert_allclose(
        SuNCEtLoss(label_smoothing=0.1)(one_hot, features), values.mean(), rtol=1e-5
    )
    one_hot[4] = 0
    values = reference.suncet(one_hot, features, label_smoothing=0.1)[0]
    np.testing.assert_allclose(
        SuNCEtLoss(label_smoothing=0.1)(one_hot, features), values[:4].mean(), rtol=1e-5
    )


def test_sample_weights_weight_the_anchors_only():
    features, labels = features_of(4, 2), np.array([0, 0, 1, 1])
    weights = np.array([1.0, 0.0, 2.0, 0.5], np.float32)
    values = suncet_loss(labels, features).numpy()
    np.testing.assert_allclose(
        SuNCEtLoss()(labels, features, weights), (values * weights).sum() / 4, rtol=1e-6
    )


def test_the_loss_is_restored_from_its_config():
    loss = SuNCEtLoss(
        temperature=0.2,
        label_smoothing=0.05,
        normalize=False,
        implementation="streaming",
        reduction="sum",
        name="mine",
    )
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is SuNCEtLoss
    assert restored.get_config() == loss.get_config()
    arguments = set(SuNCEtLoss.__init__.__annotations__) - {"return"}
    assert set(loss.get_config()) == arguments


@pytest.mark.parametrize("label_kind", [pytest.param("ints", marks=pytest.mark.slow), "soft"])
def test_fit_trains_and_starts_at_the_loss_of_the_reference(label_kind):
    keras.utils.set_random_seed(0)
    images, labels = features_of(16, 2, dim=6), labels_of(label_kind, 16)
    model = keras.Sequential([keras.Input((2, 6)), keras.layers.Dense(4, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.05), SuNCEtLoss())
    values = reference.suncet(labels, model.predict(images, verbose=0))[0]
    history = model.fit(images, labels, batch_size=16, epochs=40, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], values.sum() / np.count_nonzero(values), rtol=1e-5)
    assert history[-1] < 0.95 * history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a number > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be a number > 0, got nan"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a number >= 0 and < 1, got 1.0"),
        ({"implementation": "fast"}, "implementation must be one of .* got 'fast'"),
        ({"label_smoothing": -0.1}, "label_smoothing must be a number >= 0 and < 1, got -0.1"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        suncet_loss([0, 1], features_of(2, 2), **options)
    with pytest.raises(ValueError, match=message):
        SuNCEtLoss(**options)


@pytest.mark.parametrize("labels", [None, [0, 1], [[0], [1]]])
def test_label_smoothing_of_class_numbers_is_rejected(labels):
    with pytest.raises(ValueError, match=r"needs labels as rows \[N, C\], got"):
        suncet_loss(labels, features_of(2, 2), label_smoothing=0.1)


@pytest.mark.parametrize(
    ("labels", "features", "message"),
    [
        ([0, 1], features_of(2, 2)[:, 0], r"with a view axis, got shape \(2, 8\)"),
        ([0, 1, 2], features_of(2, 2), "got 3 labels and 2 samples"),
        (np.eye(3), features_of(2, 2), "got 3 labels and 2 samples"),
        ([0.0, 1.0], features_of(2, 2), "must be integers, got float32"),
    ],
)
def test_invalid_labels_and_features_are_rejected(labels, features, message):
    with pytest.raises(ValueError, match=message):
        suncet_loss(labels, features)
