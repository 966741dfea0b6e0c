"""The contrastive losses compared with float64 loops; edge cases and analytic identities."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from supcon_tf.losses import NPairsLoss, SimCLRLoss, SupConLoss, supcon_loss
from tests import reference
from tests.losses.gradients import relative_difference, with_gradient

SUMMATIONS = ("outside", "inside")
DENOMINATORS = ("all", "one_positive", "only_negatives")


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
    multi_hot = (rng.random((num_samples, 5)) < 0.3).astype(np.float32)
    multi_hot[0] = 0
    return multi_hot


value_and_gradient = with_gradient(supcon_loss)


@pytest.mark.parametrize("label_kind", ["none", "ints", "one_hot", "multi_hot"])
@pytest.mark.parametrize(
    ("num_views", "temperature", "scaled"), [(1, 0.5, False), (2, 0.05, True), (3, 0.5, False)]
)
def test_every_combination_of_options_equals_the_float64_loop(
    label_kind, num_views, temperature, scaled
):
    features = features_of(7, num_views)
    labels = labels_of(label_kind, 7)
    for summation, denominator, cap, anchors in itertools.product(
        SUMMATIONS,
        DENOMINATORS,
        (None, 0, num_views, 2 * num_views),
        ("all_views", "one_view"),
    ):
        options = {
            "temperature": temperature,
            "summation": summation,
            "denominator": denominator,
            "positives_cap": cap,
            "anchors": anchors,
            "scale_by_temperature": scaled,
        }
        values, gradient = value_and_gradient(labels, features, **options)
        expected_values, expected_gradient = reference.supcon(labels, features, **options)
        assert relative_difference(values, expected_values) <= 1e-5, options
        assert relative_difference(gradient, expected_gradient) <= 1e-5, options


@pytest.mark.parametrize("summation", SUMMATIONS)
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_the_reference_gradient_equals_finite_differences(summation, denominator):
    features = 3 * features_of(5, 2, dim=4)
    labels = np.array([0, 0, 1, 1, 2])
    options = {"summation": summation, "denominator": denominator, "positives_cap": 2}
    _, gradient = reference.supcon(labels, features, **options)
    slopes = reference.finite_differences(
        lambda moved: reference.supcon(labels, moved, **options)[0].sum(), features
    )
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("jit_compile", "label_kind"), [(False, "ints"), (True, "multi_hot"), (True, "none")]
)
def test_graph_and_compiled_execution_equal_eager(jit_compile, label_kind):
    labels = labels_of(label_kind, 6)
    features = features_of(6, 2)
    compiled = tf.function(
        lambda x: supcon_loss(labels, x, positives_cap=2), jit_compile=jit_compile
    )
    values, gradient = value_and_gradient(labels, features, lambda _, x: compiled(x))
    expected = value_and_gradient(labels, features, positives_cap=2)
    np.testing.assert_allclose(values, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-6)


def test_unnormalized_features_equal_the_float64_loop():
    features = 2 * features_of(6, 2)
    labels = labels_of("ints", 6)
    for normalize in (True, False):
        values, gradient = value_and_gradient(labels, features, normalize=normalize)
        expected = reference.supcon(labels, features, normalize=normalize)
        assert relative_difference(values, expected[0]) <= 1e-5
        assert relative_difference(gradient, expected[1]) <= 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_normalization_makes_the_loss_independent_of_the_features_scale(scale):
    features = features_of(6, 2)
    labels = labels_of("ints", 6)
    np.testing.assert_allclose(
        supcon_loss(labels, features * np.float32(scale)), supcon_loss(labels, features), rtol=1e-5
    )


EXTREMES = {
    "identical": np.ones((6, 2, 4), np.float32) / 2,
    "zero": np.zeros((6, 2, 4), np.float32),
    "opposite": np.stack([np.ones((6, 4)), -np.ones((6, 4))], 1).astype(np.float32),
    "logits of 1e4": features_of(6, 2, dim=4) * np.float32(np.sqrt(1e3)),
}


@pytest.mark.parametrize("case", list(EXTREMES))
@pytest.mark.parametrize("summation", SUMMATIONS)
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("normalize", [True, False])
def test_values_and_gradients_are_finite_for_extreme_features(
    case, summation, denominator, normalize
):
    for labels in (None, [0] * 6, [0, 0, 0, 1, 1, 2], np.zeros((6, 3), np.float32)):
        values, gradient = value_and_gradient(
            labels,
            EXTREMES[case],
            temperature=0.1,
            summation=summation,
            denominator=denominator,
            normalize=normalize,
        )
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("summation", SUMMATIONS)
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_a_sample_without_positives_has_value_and_gradient_zero(summation, denominator):
    values, gradient = value_and_gradient(
        [0, 1, 2, 2], features_of(4, 1), summation=summation, denominator=denominator
    )
    assert (values[:2] == 0).all()
    assert (values[2:] != 0).all()
    alone, _ = value_and_gradient([0, 1], features_of(2, 1))
    assert (alone == 0).all()
    _, gradient = value_and_gradient([0, 1], features_of(2, 1))
    assert (gradient == 0).all()


def test_only_negatives_without_a_negative_has_value_and_gradient_zero():
    values, gradient = value_and_gradient(
        [3, 3, 3], features_of(3, 2), denominator="only_negatives"
    )
    assert (values == 0).all()
    assert (gradient == 0).all()


def test_labels_above_two_to_the_24_stay_different():
    large = 2**24
    features = features_of(4, 1)
    labels = tf.constant([large, large + 1, large, large + 1], tf.int64)
    np.testing.assert_allclose(
        SupConLoss()(labels, features), SupConLoss()(tf.constant([0, 1, 0, 1]), features)
    )
    merged = SupConLoss()(tf.constant([0, 0, 0, 0]), features)
    assert abs(float(SupConLoss()(labels, features)) - float(merged)) > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_any_float_dtype_gives_the_float32_values_of_the_same_numbers(dtype):
    features = tf.cast(features_of(6, 2), dtype)
    labels = labels_of("ints", 6)
    values = supcon_loss(labels, features)
    assert values.dtype == tf.float32
    np.testing.assert_allclose(
        values, reference.supcon(labels, tf.cast(features, tf.float64).numpy())[0], rtol=1e-5
    )
    _, gradient = value_and_gradient(labels, features)
    assert gradient.dtype == features.dtype.as_numpy_dtype


def test_trailing_axes_are_flattened():
    features = features_of(5, 2, dim=12)
    labels = labels_of("ints", 5)
    np.testing.assert_array_equal(
        supcon_loss(labels, features.reshape(5, 2, 3, 4)), supcon_loss(labels, features)
    )


def test_integer_labels_with_a_trailing_axis_are_class_numbers():
    features = features_of(5, 2)
    labels = labels_of("ints", 5)
    np.testing.assert_array_equal(
        supcon_loss(labels[:, None], features), supcon_loss(labels, features)
    )


batches = st.tuples(
    st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**16), st.floats(0.05, 2.0)
)


@settings(max_examples=10, deadline=None)
@given(batches)
def test_simclr_is_supcon_with_unique_labels(batch):
    num_samples, num_views, seed, temperature = batch
    features = features_of(num_samples, num_views, seed=seed)
    simclr = SimCLRLoss(temperature=temperature, reduction=None)(None, features)
    supcon = supcon_loss(
        np.arange(num_samples), features, temperature=temperature, scale_by_temperature=False
    )
    np.testing.assert_allclose(simclr, supcon, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(batches, st.sampled_from(SUMMATIONS), st.sampled_from(DENOMINATORS))
def test_loss_is_invariant_to_batch_order(batch, summation, denominator):
    num_samples, num_views, seed, temperature = batch
    features = features_of(num_samples, num_views, seed=seed)
    labels = labels_of("ints", num_samples, seed=seed)
    options = {"temperature": temperature, "summation": summation, "denominator": denominator}
    order = np.random.default_rng(seed).permutation(num_samples)
    np.testing.assert_allclose(
        supcon_loss(labels[order], features[order], **options),
        supcon_loss(labels, features, **options).numpy()[order],
        rtol=1e-4,
        atol=1e-5,
    )


@settings(max_examples=10, deadline=None)
@given(batches)
def test_loss_depends_only_on_which_labels_are_equal(batch):
    num_samples, num_views, seed, _ = batch
    features = features_of(num_samples, num_views, seed=seed)
    labels = labels_of("ints", num_samples, seed=seed)
    one_hot = np.eye(3)[labels]
    values = supcon_loss(labels, features)
    np.testing.assert_allclose(supcon_loss(one_hot, features), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(supcon_loss(7 - labels, features), values, rtol=1e-5, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(batches)
def test_inside_is_never_above_outside(batch):
    # Jensen: the logarithm of a mean is at least the mean of the logarithms.
    num_samples, num_views, seed, temperature = batch
    features = features_of(num_samples, num_views, seed=seed)
    labels = labels_of("ints", num_samples, seed=seed)
    outside = supcon_loss(labels, features, temperature=temperature)
    inside = supcon_loss(labels, features, temperature=temperature, summation="inside")
    assert (inside.numpy() <= outside.numpy() + 1e-5).all()


@settings(max_examples=10, deadline=None)
@given(batches, st.sampled_from(DENOMINATORS))
def test_with_one_positive_inside_equals_outside(batch, denominator):
    num_samples, _, seed, temperature = batch
    features = features_of(num_samples, 2, seed=seed)
    options = {"temperature": temperature, "denominator": denominator}
    np.testing.assert_allclose(
        supcon_loss(None, features, summation="inside", **options),
        supcon_loss(None, features, summation="outside", **options),
        rtol=1e-4,
        atol=1e-5,
    )


def test_all_equal_features_give_the_logarithm_of_the_set_size():
    features = np.ones((4, 2, 3), np.float32)
    values = supcon_loss([0, 0, 1, 1], features, scale_by_temperature=False)
    np.testing.assert_allclose(values, np.full(4, np.log(7)), rtol=1e-6)
    inside = supcon_loss([0, 0, 1, 1], features, summation="inside", scale_by_temperature=False)
    # The mean of 1/7 over 3 positives is 1/7.
    np.testing.assert_allclose(inside, np.full(4, np.log(7)), rtol=1e-6)


def test_the_mean_excludes_samples_without_positives():
    features = features_of(5, 1)
    labels = np.array([0, 0, 1, 1, 2])
    values = reference.supcon(labels, features)[0]
    np.testing.assert_allclose(SupConLoss()(labels, features), values[:4].mean(), rtol=1e-5)
    multi_hot = np.eye(3)[[0, 0, 1, 1, 2]]
    multi_hot[4] = 0
    two_views = features_of(5, 2)
    values = reference.supcon(multi_hot, two_views)[0]
    np.testing.assert_allclose(SupConLoss()(multi_hot, two_views), values[:4].mean(), rtol=1e-5)


def test_sample_weights_weight_the_anchors_only():
    features, labels = features_of(4, 2), np.array([0, 0, 1, 1])
    weights = np.array([1.0, 0.0, 2.0, 0.5], np.float32)
    values = supcon_loss(labels, features).numpy()
    np.testing.assert_allclose(
        SupConLoss()(labels, features, weights), (values * weights).sum() / 4, rtol=1e-6
    )


def test_the_n_pairs_positive_is_the_first_other_sample_of_the_class():
    features = features_of(4, 1).astype(np.float64)
    labels = np.array([0, 0, 0, 1])
    z = features[:, 0]
    expected = []
    for anchor, positive in ((0, 1), (1, 0), (2, 0)):
        terms = [np.exp(z[anchor] @ z[positive]), np.exp(z[anchor] @ z[3])]
        expected.append(-np.log(terms[0] / sum(terms)))
    np.testing.assert_allclose(
        NPairsLoss()(labels, features.astype(np.float32)), np.mean(expected), rtol=1e-5
    )


@pytest.mark.parametrize(
    "loss",
    [
        SupConLoss(
            temperature=0.2,
            summation="inside",
            denominator="one_positive",
            positives_cap=4,
            anchors="one_view",
            scale_by_temperature=False,
            normalize=False,
            implementation="dense",
            reduction="sum",
            name="mine",
        ),
        SimCLRLoss(temperature=0.2, scale_by_temperature=True, normalize=False, name="mine"),
        SimCLRLoss(contrast_gradient=False, implementation="dense"),
        NPairsLoss(normalize=False, reduction="sum", name="mine"),
    ],
)
def test_the_loss_is_restored_from_its_config(loss):
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is type(loss)
    assert restored.get_config() == loss.get_config()
    arguments = set(type(loss).__init__.__annotations__) - {"return"}
    assert set(loss.get_config()) == arguments


def small_model():
    return keras.Sequential([keras.Input((2, 6)), keras.layers.Dense(4, use_bias=False)])


def test_fit_trains_with_integer_labels_and_without_and_starts_at_the_loss_of_the_reference():
    images = features_of(16, 2, dim=6)
    for loss, targets in ((SupConLoss(), labels_of("ints", 16)), (SimCLRLoss(), None)):
        model = small_model()
        model.compile(keras.optimizers.SGD(0.5), loss)
        expected = reference.supcon(
            targets, model(images).numpy(), scale_by_temperature=targets is not None
        )[0].mean()
        history = model.fit(images, targets, batch_size=16, epochs=20, verbose=0)
        losses = history.history["loss"]
        np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
        assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a number > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be a number > 0, got nan"),
        ({"summation": "out"}, "summation must be one of .*'outside'.* got 'out'"),
        ({"denominator": "none"}, "denominator must be one of .* got 'none'"),
        ({"anchors": "two"}, "anchors must be one of .* got 'two'"),
        ({"implementation": "fast"}, "implementation must be one of .* got 'fast'"),
        ({"positives_cap": -2}, "positives_cap must be an integer >= 0, got -2"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        supcon_loss([0, 1], features_of(2, 2), **options)
    with pytest.raises(ValueError, match=message):
        SupConLoss(**options)


@pytest.mark.parametrize(
    ("labels", "features", "options", "message"),
    [
        ([0, 1], features_of(2, 2), {"positives_cap": 3}, "multiple of the 2 views, got 3"),
        ([0, 1], features_of(2, 2)[:, 0], {}, r"with a view axis, got shape \(2, 8\)"),
        ([0, 1, 2], features_of(2, 2), {}, "got 3 labels and 2 samples"),
        ([0.0, 1.0], features_of(2, 2), {}, "must be integers, got float32"),
        (np.zeros((2, 2, 2)), features_of(2, 2), {}, "labels must be"),
        ([0, 1], np.zeros((2, 2, 3), np.int32), {}, "features must be floats, got int32"),
        ([0, 1], np.zeros((2, 0, 3), np.float32), {}, "number of views"),
    ],
)
def test_invalid_labels_and_features_are_rejected(labels, features, options, message):
    with pytest.raises(ValueError, match=message):
        supcon_loss(labels, features, **options)


def test_n_pairs_rejects_two_views():
    with pytest.raises(ValueError, match="one view"):
        NPairsLoss()([0, 0], tf.constant(features_of(2, 2)))
