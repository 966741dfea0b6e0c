"""Margins, several and soft labels, class centres, parametric: compared with float64 loops."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from supcon_tf import losses
from supcon_tf.errors import UserError
from supcon_tf.losses.streaming import tiles
from tests import reference
from tests.losses import family_reference
from tests.losses.gradients import relative_difference
from tests.replicas import two_replicas

RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(4, 5)).astype(np.float32)
LOGITS = RNG.normal(size=(7, 4)).astype(np.float32)
LOGITS_PER_VIEW = RNG.normal(size=(7, 3, 4)).astype(np.float32)
PRIOR = np.log([0.4, 0.3, 0.2, 0.1]).astype(np.float32)
NUMBERS = {
    "unbalanced": np.array([0, 0, 0, 0, 1, 1, 3]),  # Class 2 is empty, class 3 has one sample.
    "one class": np.zeros(7, int),
    "all different": np.array([0, 1, 2, 3, 4, 5, 6]),
}
SEVERAL = np.array(
    [
        [1, 0, 0, 1],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 1],
        [0, 0, 1, 0],
        [0, 1, 0, 1],
    ]
)
MIXED = np.array(
    [[1, 0, 0], [0.7, 0.3, 0], [0, 0.5, 0.5], [0, 0, 0], [0, 2, 0], [0, 0, 1], [0.2, 0.4, 0.4]]
)
SCALED = {"scale_by_temperature": False}


def of_features(function, *args, **options):
    """(features, temperature, implementation) -> losses, for given labels."""

    def call(features, temperature, implementation):
        return function(
            *args, features, temperature=temperature, implementation=implementation, **options
        )

    return call


def margin_case(labels, **options):
    return (
        of_features(losses.supcon_loss, labels, **options, **SCALED),
        functools.partial(family_reference.margin, labels, **options),
    )


def overlap(one, other):
    return float(SEVERAL[one] @ SEVERAL[other])


def balanced_case(labels):
    def call(features, temperature, implementation):
        return losses.balanced_supcon_loss(
            labels, features, CENTERS, temperature=temperature, implementation=implementation
        )

    return call, lambda features, temperature: family_reference.balanced(
        labels, features, CENTERS, temperature=temperature
    )


def parametric_case(labels, logits, **options):
    options = {
        **{"alpha": 0.05, "beta": 1.0, "gamma": 1.0, "label_smoothing": 0.0, "log_prior": None},
        **options,
    }
    return (
        of_features(losses.parametric_supcon_loss, labels, logits, **options),
        functools.partial(family_reference.parametric, labels, logits, **options),
    )


CASES = {
    **{
        f"SINCERE, {name}": margin_case(labels, denominator="one_positive", margin=0.0)
        for name, labels in NUMBERS.items()
    },
    "margin": margin_case(NUMBERS["unbalanced"], denominator="one_positive", margin=0.25),
    "margin, several labels": margin_case(SEVERAL, denominator="one_positive", margin=0.25),
    "margin, all": margin_case(NUMBERS["unbalanced"], denominator="all", margin=0.5),
    "overlap": (
        of_features(losses.supcon_loss, SEVERAL, multi_label="overlap", **SCALED),
        lambda features, temperature: family_reference.weighted(
            overlap, features, temperature=temperature
        ),
    ),
    "per label": (
        of_features(losses.supcon_loss, SEVERAL, multi_label="per_label", **SCALED),
        functools.partial(family_reference.per_label, SEVERAL),
    ),
    "soft": (
        of_features(losses.soft_supcon_loss, MIXED),
        functools.partial(family_reference.soft, MIXED),
    ),
    "balanced": balanced_case(NUMBERS["unbalanced"]),
    "balanced, one class": balanced_case(NUMBERS["one class"]),
    "parametric": parametric_case(NUMBERS["unbalanced"], LOGITS),
    "parametric, one class": parametric_case(NUMBERS["one class"], LOGITS),
    "parametric, every option": parametric_case(
        NUMBERS["unbalanced"],
        LOGITS,
        alpha=0.3,
        beta=0.7,
        gamma=0.4,
        label_smoothing=0.1,
        log_prior=PRIOR,
    ),
}


def features_of(num_samples=7, num_views=2, dim=5):
    rng = np.random.default_rng(num_samples + num_views)
    return rng.normal(size=(num_samples, num_views, dim)).astype(np.float32)


def value_and_gradient(function, variable):
    variable = tf.constant(variable)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        values = function(variable)
        total = tf.reduce_sum(values)
    return values.numpy(), tape.gradient(total, variable).numpy()


@pytest.fixture(params=["dense", "streaming"])
def implementation(request, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_TILE_ROWS", 16)
    return request.param


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize(("num_views", "temperature"), [(1, 0.3), (2, 0.1), (2, 0.01)])
def test_values_and_gradients_equal_the_float64_loop(case, num_views, temperature, implementation):
    function, expected = CASES[case]
    features = features_of(num_views=num_views)
    values, gradient = value_and_gradient(
        lambda x: function(x, temperature, implementation), features
    )
    assert relative_difference(values, expected(features, temperature=temperature)) <= 1e-5
    slopes = reference.finite_differences(
        lambda moved: expected(moved, temperature=temperature).sum(), features
    )
    assert relative_difference(gradient, slopes) <= 2e-5


def test_logits_per_view_equal_the_float64_loop(implementation):
    function, expected = parametric_case(NUMBERS["unbalanced"], LOGITS_PER_VIEW)
    features = features_of(num_views=3)
    values = function(features, 0.1, implementation).numpy()
    assert relative_difference(values, expected(features, temperature=0.1)) <= 1e-5


def test_centers_logits_and_temperature_get_their_gradients(implementation):
    features, labels = features_of(), NUMBERS["unbalanced"]
    options = {"temperature": 0.2, "implementation": implementation}
    _, gradient = value_and_gradient(
        lambda centers: losses.balanced_supcon_loss(labels, features, centers, **options), CENTERS
    )
    slopes = reference.finite_differences(
        lambda moved: family_reference.balanced(labels, features, moved, temperature=0.2).sum(),
        CENTERS,
    )
    assert relative_difference(gradient, slopes) <= 2e-5
    _, gradient = value_and_gradient(
        lambda logits: losses.parametric_supcon_loss(labels, logits, features, **options), LOGITS
    )
    slopes = reference.finite_differences(
        lambda moved: parametric_case(labels, moved)[1](features, temperature=0.2).sum(), LOGITS
    )
    assert relative_difference(gradient, slopes) <= 2e-5
    for case in ("SINCERE, unbalanced", "soft", "balanced", "parametric"):
        function, expected = CASES[case]
        _, gradient = value_and_gradient(
            lambda t, function=function: function(features, t, implementation), np.float32(0.2)
        )
        slope = reference.finite_differences(
            lambda t, expected=expected: expected(features, temperature=float(t)).sum(), 0.2
        )
        assert relative_difference(gradient, slope) <= 1e-4


@pytest.mark.parametrize("case", ["SINCERE, unbalanced", "per label", "soft", "balanced"])
def test_bfloat16_features_give_the_float32_values_of_the_same_numbers(case, implementation):
    function, expected = CASES[case]
    features = tf.cast(features_of(), tf.bfloat16)
    values, gradient = value_and_gradient(lambda x: function(x, 0.1, implementation), features)
    assert values.dtype == np.float32
    assert gradient.dtype == tf.bfloat16.as_numpy_dtype
    exact = expected(tf.cast(features, tf.float64).numpy(), temperature=0.1)
    np.testing.assert_allclose(values, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "case", ["SINCERE, unbalanced", "per label", "soft", "balanced", "parametric"]
)
def test_graph_and_compiled_execution_equal_eager(case, jit_compile, implementation):
    function, _ = CASES[case]
    features = features_of()
    compiled = tf.function(
        lambda x: function(x, 0.1, implementation), autograph=False, jit_compile=jit_compile
    )
    values, gradient = value_and_gradient(compiled, features)
    expected = value_and_gradient(lambda x: function(x, 0.1, implementation), features)
    assert relative_difference(values, expected[0]) <= 1e-5
    assert relative_difference(gradient, expected[1]) <= 1e-5


@pytest.mark.parametrize("case", ["sincere", "per label", "soft", "balanced", "parametric"])
def test_two_replicas_give_the_gradient_of_one_on_the_whole_batch(case, implementation):
    def loss(rows, features):
        options = {"temperature": 0.2, "implementation": implementation}
        labels, several, mixed, logits = (
            tf.constant(x)[rows]
            for x in (NUMBERS["unbalanced"][:6], SEVERAL[:6], MIXED[:6], LOGITS[:6])
        )
        if case == "sincere":
            return losses.supcon_loss(labels, features, denominator="one_positive", **options)
        if case == "per label":
            return losses.supcon_loss(several, features, multi_label="per_label", **options)
        if case == "soft":
            return losses.soft_supcon_loss(mixed, features, **options)
        if case == "balanced":
            return losses.balanced_supcon_loss(labels, features, CENTERS, **options)
        return losses.parametric_supcon_loss(labels, logits, features, **options)

    features = features_of(6)

    @tf.function(autograph=False)
    def on_replica():
        start = 3 * tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = slice(start, start + 3)
        return value_and_gradient_in_graph(functools.partial(loss, rows), features[:0], rows)

    def value_and_gradient_in_graph(function, _, rows):
        local = tf.ensure_shape(tf.constant(features)[rows], [3, 2, 5])
        with tf.GradientTape() as tape:
            tape.watch(local)
            values = function(local)
        return values, tape.gradient(values, local)

    strategy = two_replicas()
    values, gradient = (
        np.concatenate(strategy.experimental_local_results(result))
        for result in strategy.run(on_replica)
    )
    expected = value_and_gradient(functools.partial(loss, slice(None)), features)
    assert relative_difference(values, expected[0]) <= 1e-5
    assert relative_difference(gradient, expected[1]) <= 1e-5


batches = st.tuples(st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**16))


def random_batch(batch, num_classes=3):
    num_samples, num_views, seed = batch
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_samples, num_views, 5)).astype(np.float32)
    return rng.integers(num_classes, size=num_samples), features


def assert_same(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(batches)
def test_soft_overlap_and_per_label_with_one_label_each_are_supcon(batch):
    labels, features = random_batch(batch)
    one_hot = np.eye(3, dtype=np.float32)[labels]
    expected = losses.supcon_loss(labels, features)
    soft = losses.soft_supcon_loss(one_hot, features)
    assert_same(0.1 * soft, expected)
    assert_same(losses.soft_supcon_loss(3 * one_hot, features), soft)
    for multi_label in ("overlap", "per_label"):
        assert_same(
            losses.supcon_loss(one_hot.astype(int), features, multi_label=multi_label), expected
        )


@settings(max_examples=25, deadline=None)
@given(batches)
def test_a_loss_with_margin_0_is_the_loss_without(batch):
    labels, features = random_batch(batch)
    expected = losses.supcon_loss(labels, features, denominator="one_positive")
    assert_same(
        losses.SINCERELoss(reduction=None).call(labels, features),
        losses.SupConLoss(denominator="one_positive", reduction=None).call(labels, features),
    )
    assert_same(
        losses.supcon_loss(labels, features, denominator="one_positive", margin=0.0), expected
    )
    # A margin makes the positive's part of the denominator smaller, and so the loss.
    with_margin = losses.supcon_loss(labels, features, denominator="one_positive", margin=0.5)
    assert (with_margin.numpy() <= expected.numpy() + 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(batches, st.sampled_from([0.0, 0.2]))
def test_parametric_with_alpha_and_gamma_0_is_cross_entropy(batch, smoothing):
    labels, features = random_batch(batch)
    logits = np.random.default_rng(1).normal(size=(len(labels), 3)).astype(np.float32)
    actual = losses.parametric_supcon_loss(
        labels, logits, features, alpha=0.0, gamma=0.0, label_smoothing=smoothing
    )
    expected = losses.CrossEntropyLoss(label_smoothing=smoothing, reduction=None)(labels, logits)
    assert_same(actual, expected)


@settings(max_examples=25, deadline=None)
@given(batches)
def test_parametric_without_class_scores_is_supcon(batch):
    labels, features = random_batch(batch)
    logits = np.full((len(labels), 3), -1e4, np.float32)
    actual = losses.parametric_supcon_loss(labels, logits, features, alpha=1.0, beta=0.0)
    assert_same(0.1 * actual, losses.supcon_loss(labels, features))


def test_balanced_with_equal_classes_and_far_centers_averages_over_classes():
    # Two classes of two samples, one view: D has, for each class, a mean; derive it by hand.
    features = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]], np.float32)
    value = losses.balanced_supcon_loss(
        [0, 0, 1, 1], features, np.eye(2, dtype=np.float32), temperature=1.0
    )
    np.testing.assert_allclose(value, np.full(4, np.log(np.e + 1) - 1), rtol=1e-6)


def test_a_positive_mask_gives_the_loss_of_the_labels_that_it_stands_for():
    labels, features = NUMBERS["unbalanced"], features_of()
    mask = labels[:, None] == labels[None, :]
    for denominator in ("all", "one_positive", "only_negatives"):
        assert_same(
            losses.supcon_loss(None, features, positive_mask=mask, denominator=denominator),
            losses.supcon_loss(labels, features, denominator=denominator),
        )
    # Pairs need not be symmetric; the other view of a sample is always a positive.
    mask = np.zeros((7, 7), bool)
    alone = losses.supcon_loss(None, features, positive_mask=mask)
    assert_same(alone, losses.supcon_loss(None, features))
    mask[0, 1] = True
    changed = losses.supcon_loss(None, features, positive_mask=mask) != alone
    assert changed.numpy().tolist() == [True] + 6 * [False]


@pytest.mark.parametrize("contrast_gradient", [True, False])
def test_without_contrast_gradient_only_the_anchors_move(contrast_gradient, implementation):
    features, labels = features_of(num_views=1), np.array([0, 0, 1, 1, 2, 2, 2])
    _, gradient = value_and_gradient(
        lambda x: losses.supcon_loss(
            labels, x, contrast_gradient=contrast_gradient, implementation=implementation
        ),
        features,
    )

    def loss_of_first(moved):
        """The first anchor's loss when it moves, in its own term only."""
        rows = features.astype(np.float64).copy()
        rows[0] = moved
        return reference.supcon(labels, rows)[0][0]

    own = reference.finite_differences(loss_of_first, features[0])
    is_own = relative_difference(gradient[0], own) <= 1e-4
    assert is_own != contrast_gradient


LOSSES = {
    "SINCERELoss": losses.SINCERELoss(temperature=0.2, margin=0.25),
    "SoftSupConLoss": losses.SoftSupConLoss(temperature=0.2),
    "ParametricSupConLoss": losses.ParametricSupConLoss(4, alpha=0.1, log_prior=PRIOR),
    "SupConLoss": losses.SupConLoss(multi_label="overlap", margin=0.5, contrast_gradient=False),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_classes_are_restored_from_their_config(name):
    loss = LOSSES[name]
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert restored.get_config() == loss.get_config()


def test_the_mean_leaves_out_samples_without_a_positive():
    features = features_of()
    values = family_reference.soft(MIXED, features, temperature=0.1)
    assert values[3] == 0
    expected = values.sum() / 6
    np.testing.assert_allclose(losses.SoftSupConLoss()(MIXED, features), expected, rtol=1e-5)


def test_a_balanced_loss_from_a_file_asks_for_its_centers():
    loss = losses.BalancedSupConLoss(lambda: CENTERS)
    restored = losses.BalancedSupConLoss.from_config(loss.get_config())
    with pytest.raises(UserError, match="without its centres: compile the model again"):
        restored(np.zeros(7, int), features_of())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: losses.soft_supcon_loss([0, 1], x), r"must be rows \[N, C\].*supcon_loss takes"),
        (lambda x: losses.soft_supcon_loss([[1.0], [-1.0]], x), "must be finite numbers >= 0"),
        (lambda x: losses.soft_supcon_loss([[1.0, 0.0]], x), "must agree in N"),
        (lambda x: losses.balanced_supcon_loss([0, 5], x, np.eye(2, 5, dtype="f")), r"in \[0, 2\)"),
        (lambda x: losses.balanced_supcon_loss([0, 1], x, np.eye(3, dtype="f")), "have the 5 numbers"),
        (lambda x: losses.balanced_supcon_loss([[0.5, 0.5], [1, 0]], x, np.eye(2, 5, dtype="f")),
         "must be one-hot"),
        (lambda x: losses.parametric_supcon_loss([0, 1], np.eye(2, dtype="f"), x, alpha=0.0, beta=0.0),
         "alpha or beta must be > 0"),
        (lambda x: losses.parametric_supcon_loss([0, 1], np.ones((2, 3, 2), "f"), x), "logits must be"),
        (lambda x: losses.parametric_supcon_loss([0, 1], np.eye(2, dtype="f"), x, log_prior=[1.0]),
         r"log_prior must be \[2\]"),
        (lambda x: losses.parametric_supcon_loss([[0.5, 0.5], [1, 0]], np.eye(2, dtype="f"), x),
         "must be one-hot"),
        (lambda x: losses.ParametricSupConLoss(9)([0, 1], x), "9 logits and a projection"),
        (lambda x: losses.supcon_loss([0, 1], x, margin=-1.0), "margin must be .*>= 0"),
        (lambda x: losses.supcon_loss([0, 1], x, margin=0.1, denominator="only_negatives"),
         "margin needs a denominator with positives"),
        (lambda x: losses.supcon_loss([0, 1], x, multi_label="all"), "multi_label must be one of"),
        (lambda x: losses.supcon_loss([0, 1], x, multi_label="overlap", summation="inside"),
         "needs summation 'outside'"),
        (lambda x: losses.supcon_loss([0, 1], x, positive_mask=np.eye(2, dtype=bool)),
         "labels must be None with a positive_mask"),
        (lambda x: losses.supcon_loss(None, x, positive_mask=np.eye(2)), "must be bool"),
        (lambda x: losses.supcon_loss(None, x, positive_mask=np.eye(3, dtype=bool)), r"must be \[2, 2\]"),
        (lambda x: losses.supcon_loss(None, x, positive_mask=np.eye(2, dtype=bool),
                                      implementation="streaming"), "needs implementation 'dense'"),
        (lambda x: losses.BalancedSupConLoss(CENTERS), "must be a function"),
    ],
)  # fmt: skip
def test_invalid_input_is_a_one_line_error(call, says):
    with pytest.raises(UserError, match=says) as raised:
        call(features_of(2))
    assert "\n" not in str(raised.value)
