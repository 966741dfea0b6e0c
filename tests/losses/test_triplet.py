"""The triplet loss compared with float64 loops, and its edge cases."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.losses import TripletLoss, triplet_loss
from tests import reference
from tests.losses.gradients import with_gradient
from tests.replicas import two_replicas

MININGS = ["hard", "semi_hard", "all"]


def features_of(num_samples, num_views, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_samples, num_views, dim)).astype(np.float32)


def labels_of(kind, num_samples):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 3, num_samples)
    return {
        "none": None,
        "ints": ids,
        "one_hot": np.eye(3, dtype=np.float32)[ids],
        "multi_hot": (rng.random((num_samples, 5)) < 0.3).astype(np.int32),
    }[kind]


value_and_gradient = with_gradient(triplet_loss)


def assert_near(actual, expected, tolerance=1e-5):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("label_kind", ["none", "ints", "one_hot", "multi_hot"])
@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("mining", MININGS)
def test_values_and_gradients_equal_the_float64_loop(label_kind, num_views, mining):
    features, labels = features_of(9, num_views), labels_of(label_kind, 9)
    for options in ({}, {"margin": 1.5}, {"margin": 1.0, "normalize": False}):
        expected = reference.triplet(labels, features, mining=mining, **options)
        assert (expected[0].max() > 0) == (num_views > 1 or label_kind != "none")
        assert_near(value_and_gradient(labels, features, mining=mining, **options), expected)


@pytest.mark.parametrize("mining", MININGS)
def test_the_reference_gradient_equals_finite_differences(mining):
    features, labels = features_of(5, 2), labels_of("ints", 5)
    slopes = reference.finite_differences(
        lambda moved: reference.triplet(labels, moved, mining=mining)[0].sum(), features
    )
    gradient = reference.triplet(labels, features, mining=mining)[1]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


def test_mining_selects_the_triplets_of_the_papers():
    # Distances from the first sample: positives at 1 and 4, negatives at 2.25 and 9.
    features = np.array([0, 1, 2, -1.5, 3], np.float32)[:, None, None]
    labels, options = [0, 0, 0, 1, 2], {"margin": 2.0, "normalize": False}
    for mining, expected in [
        ("hard", 2 + 4 - 2.25),
        ("semi_hard", ((2 + 1 - 2.25) + 0) / 2),  # The negative at 9 is too far for a loss.
        ("all", ((2 + 1 - 2.25) + (2 + 4 - 2.25)) / 4),
    ]:
        values = triplet_loss(labels, features, mining=mining, **options)
        np.testing.assert_allclose(values[0], expected, rtol=1e-6)


def test_semi_hard_takes_the_farthest_negative_where_none_is_farther_than_the_positive():
    features = np.array([0, 3, 1, -2], np.float32)[:, None, None]
    values = triplet_loss([0, 0, 1, 2], features, mining="semi_hard", margin=1.0, normalize=False)
    np.testing.assert_allclose(values[0], 1 + 9 - 4, rtol=1e-6)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize(
    ("labels", "num_views"),
    [
        ([0, 1, 2, 3], 1),  # No positives.
        (None, 1),
        ([7, 7, 7, 7], 1),  # No negatives.
        ([7, 7, 7, 7], 2),
        (np.zeros((4, 3), np.float32), 2),  # Samples without a label.
    ],
)
def test_without_triplets_values_and_gradients_are_zero(labels, num_views, mining):
    values, gradient = value_and_gradient(labels, features_of(4, num_views), mining=mining)
    assert values.shape == (4,)
    assert (values == 0).all()
    assert (gradient == 0).all()


EXTREMES = {
    "identical": np.ones((6, 2, 4), np.float32),
    "zero": np.zeros((6, 2, 4), np.float32),
    "opposite": np.stack([np.ones((6, 4)), -np.ones((6, 4))], 1).astype(np.float32),
    "1e15": features_of(6, 2) * np.float32(1e15),
    "1e-15": features_of(6, 2) * np.float32(1e-15),
}


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("case", list(EXTREMES))
@pytest.mark.parametrize("normalize", [True, False])
def test_values_and_gradients_are_finite_for_extreme_features(case, normalize, mining):
    for labels in (None, [0] * 6, [0, 0, 0, 1, 1, 2], np.zeros((6, 3), np.float32)):
        options = {"mining": mining, "normalize": normalize}
        values, gradient = value_and_gradient(labels, EXTREMES[case], **options)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mining", MININGS)
def test_identical_features_give_the_margin(mining):
    values = triplet_loss([0, 0, 1, 1], np.ones((4, 2, 3), np.float32), mining=mining)
    np.testing.assert_allclose(values, np.full(4, 0.2), rtol=1e-6)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("scale", [1e-20, 1e30])
def test_the_length_of_features_does_not_matter(scale, mining):
    features, labels = features_of(6, 2), labels_of("ints", 6)
    values = triplet_loss(labels, features * np.float32(scale), mining=mining)
    expected = reference.triplet(labels, features, mining=mining)[0]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_small_differences_of_close_features_are_exact(offset, mining):
    # As on an early plateau, where all rows are nearly equal. Multiples of 2^-9 stay exact.
    features = np.round(features_of(8, 2) * 32).astype(np.float32) / 512 + np.float32(offset)
    labels, options = labels_of("ints", 8), {"mining": mining, "margin": 0.01, "normalize": False}
    expected = reference.triplet(labels, features, **options)
    assert_near(value_and_gradient(labels, features, **options), expected, 1e-5)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_any_float_dtype_gives_the_float32_values_of_the_same_numbers(dtype, mining):
    features, labels = tf.cast(features_of(6, 2), dtype), labels_of("ints", 6)
    values = triplet_loss(labels, features, mining=mining)
    assert values.dtype == tf.float32
    expected = reference.triplet(labels, tf.cast(features, tf.float64), mining=mining)[0]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    _, gradient = value_and_gradient(labels, features, mining=mining)
    assert gradient.dtype == features.dtype.as_numpy_dtype


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_and_compiled_execution_equal_eager(jit_compile):
    labels, features = labels_of("ints", 6), features_of(6, 2)

    def losses_of_all(labels, features):
        # Each with a factor of its own in the gradient of the sum.
        return tf.stack(
            [
                n * triplet_loss(labels, features, mining=mining)
                for n, mining in enumerate(MININGS, 1)
            ]
        )

    compiled = tf.function(
        lambda x: losses_of_all(labels, x),
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([6 if jit_compile else None, 2, 4], tf.float32)],
    )
    assert_near(
        value_and_gradient(labels, features, lambda _, x: compiled(x)),
        value_and_gradient(labels, features, losses_of_all),
    )


# Mining follows the gather.
@pytest.mark.parametrize(
    ("label_kind", "mining"),
    [
        pytest.param("none", "hard", marks=pytest.mark.slow),
        ("ints", "semi_hard"),
        pytest.param("multi_hot", "all", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_give_the_values_and_gradient_of_one_on_the_whole_batch(label_kind, mining):
    features, labels = features_of(12, 2), labels_of(label_kind, 12)

    @tf.function
    def on_replica():
        start = 6 * tf.distribute.get_replica_context().replica_id_in_sync_group
        local = tf.constant(features)[start : start + 6]
        local_labels = None if labels is None else tf.constant(labels)[start : start + 6]
        with tf.GradientTape() as tape:
            tape.watch(local)
            values = triplet_loss(local_labels, local, mining=mining)
        loss = TripletLoss(mining=mining)(local_labels, local)
        return values, tape.gradient(values, local), loss

    strategy = two_replicas()
    values, gradient, loss = map(strategy.experimental_local_results, strategy.run(on_replica))
    expected = value_and_gradient(labels, features, mining=mining)
    assert_near((np.concatenate(values), np.concatenate(gradient)), expected)
    # Keras divides by the replicas, so that the losses add up to the global mean.
    np.testing.assert_allclose(sum(loss), TripletLoss(mining=mining)(labels, features), rtol=1e-5)


def test_the_mean_excludes_samples_without_positives():
    features, labels = features_of(5, 1), np.array([0, 0, 1, 1, 2])
    values = reference.triplet(labels, features)[0]
    np.testing.assert_allclose(TripletLoss()(labels, features), values[:4].mean(), rtol=1e-5)


def test_sample_weights_weight_the_anchors_only():
    features, labels = features_of(4, 2), np.array([0, 0, 1, 1])
    weights = np.array([1.0, 0.0, 2.0, 0.5], np.float32)
    values = triplet_loss(labels, features).numpy()
    np.testing.assert_allclose(
        TripletLoss()(labels, features, weights), (values * weights).sum() / 4, rtol=1e-6
    )


def test_labels_above_two_to_the_24_stay_different():
    labels = 2**24 + np.array([0, 1, 0, 1])
    features = features_of(4, 1)
    apart = TripletLoss()(labels, features)
    assert float(apart) > 0
    np.testing.assert_allclose(apart, TripletLoss()([0, 1, 0, 1], features))


def test_the_loss_is_restored_from_its_config():
    loss = TripletLoss(margin=0.5, mining="all", normalize=False, reduction="sum", name="mine")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is TripletLoss
    assert restored.get_config() == loss.get_config()
    assert set(loss.get_config()) == set(TripletLoss.__init__.__annotations__) - {"return"}


def test_fit_trains_and_starts_at_the_loss_of_the_reference():
    keras.utils.set_random_seed(0)
    images, labels = features_of(16, 2, dim=6), labels_of("ints", 16)
    model = keras.Sequential([keras.Input((2, 6)), keras.layers.Dense(4, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.05), TripletLoss(mining="all"))
    values = reference.triplet(labels, model.predict(images, verbose=0), mining="all")[0]
    history = model.fit(images, labels, batch_size=16, epochs=40, verbose=0).history["loss"]
    np.testing.assert_allclose(history[0], values.mean(), rtol=1e-5)
    assert history[-1] < 0.95 * history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -0.1}, "margin must be a number >= 0, got -0.1"),
        ({"margin": float("nan")}, "margin must be a number >= 0, got nan"),
        ({"mining": "easy"}, "mining must be one of .* got 'easy'"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        triplet_loss([0, 1], features_of(2, 2), **options)
    with pytest.raises(UserError, match=message):
        TripletLoss(**options)


@pytest.mark.parametrize(
    ("labels", "features", "message"),
    [
        ([0, 1], features_of(2, 2)[:, 0], r"with a view axis, got shape \(2, 4\)"),
        ([0, 1, 2], features_of(2, 2), "got 3 labels and 2 samples"),
    ],
)
def test_invalid_labels_and_features_are_rejected(labels, features, message):
    with pytest.raises(UserError, match=message):
        triplet_loss(labels, features)
