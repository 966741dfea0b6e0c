"""Margins, several and soft labels, class centres, parametric: compared with float64 loops."""

import functools
import itertools

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
# A difference of sums would lose what the others share with the first and the last two samples.
SCALES = np.array(
    [
        [1e9, 1, 0],
        [0, 1, 0],
        [0, 1e-9, 1e-9],
        [1e-12, 0.5, 0.5],
        [0, 0, 1e-25],
        [0, 0, 1e15],
        [1e-7, 0, 1e12],
    ]
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
    "margin, in": (
        of_features(
            losses.supcon_loss,
            NUMBERS["unbalanced"],
            **{"summation": "inside", "denominator": "mean_positive", "margin": 0.5},
            **SCALED,
        ),
        functools.partial(
            family_reference.margin,
            NUMBERS["unbalanced"],
            **{"denominator": "mean_positive", "margin": 0.5},
        ),
    ),
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
    "soft, rows of several scales": (
        of_features(losses.soft_supcon_loss, SCALES),
        functools.partial(family_reference.soft, SCALES),
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


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "MAX_TILE_ROWS", 16)


@pytest.fixture(params=["dense", "streaming"])
def implementation(request):
    return request.param


def with_implementations(*fast):
    """Cases of (implementation, name); all but the `fast` ones are slow."""
    names = ("SINCERE, unbalanced", "per label", "soft", "balanced", "parametric")
    return pytest.mark.parametrize(
        ("implementation", "case"),
        [
            pytest.param(*pair, marks=() if pair in fast else pytest.mark.slow)
            for pair in itertools.product(("dense", "streaming"), names)
        ],
    )


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize(("num_views", "temperature"), [(1, 0.3), (2, 0.1), (2, 0.01)])
def test_values_and_gradients_equal_the_float64_loop(case, num_views, temperature):
    function, expected = CASES[case]
    features = features_of(num_views=num_views)
    losses_of_samples = expected(features, temperature=temperature)
    slopes = reference.finite_differences(
        lambda moved: expected(moved, temperature=temperature).sum(), features
    )
    for implementation in ("dense", "streaming"):
        values, gradient = value_and_gradient(
            lambda x, name=implementation: function(x, temperature, name), features
        )
        assert relative_difference(values, losses_of_samples) <= 1e-5, implementation
        assert relative_difference(gradient, slopes) <= 2e-5, implementation


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


# Each loss once, each implementation more than once.
@with_implementations(
    ("dense", "per label"),
    ("dense", "SINCERE, unbalanced"),
    ("dense", "parametric"),
    ("streaming", "soft"),
    ("streaming", "balanced"),
)
def test_compiled_execution_equals_eager(case, implementation):
    function, _ = CASES[case]
    features = features_of()
    compiled = tf.function(
        lambda x: function(x, 0.1, implementation), autograph=False, jit_compile=True
    )
    values, gradient = value_and_gradient(compiled, features)
    expected = value_and_gradient(lambda x: function(x, 0.1, implementation), features)
    assert relative_difference(values, expected[0]) <= 1e-5
    assert relative_difference(gradient, expected[1]) <= 1e-5


# Both implementations take the contrast set that `pairs` gathers.
@with_implementations(
    *(("dense", case) for case in ("per label", "soft", "parametric")),
    *(("streaming", case) for case in ("SINCERE, unbalanced", "balanced")),
)
def test_two_replicas_give_the_gradient_of_one_on_the_whole_batch(case, implementation):
    def loss(rows, features):
        options = {"temperature": 0.2, "implementation": implementation}
        labels, several, mixed, logits = (
            tf.constant(x)[rows]
            for x in (NUMBERS["unbalanced"][:6], SEVERAL[:6], MIXED[:6], LOGITS[:6])
        )
        if case == "SINCERE, unbalanced":
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
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Five rows on the first replica, one on the second.
        rows = slice(tf.constant([0, 5])[replica], tf.constant([5, 6])[replica])
        local = tf.ensure_shape(tf.constant(features)[rows], [None, 2, 5])
        with tf.GradientTape() as tape:
            tape.watch(local)
            values = loss(rows, local)
        return values, tape.gradient(values, local)

    strategy = two_replicas()
    values, gradient = (
        np.concatenate(strategy.experimental_local_results(result))
        for result in strategy.run(on_replica)
    )
    expected = value_and_gradient(functools.partial(loss, slice(None)), features)
    assert relative_difference(values, expected[0]) <= 1e-5
    assert relative_difference(gradient, expected[1]) <= 1e-5


def test_a_replica_with_one_row_of_known_shape_gathers_like_one_with_five():
    features = features_of(6)
    parts = iter([slice(0, 5), slice(5, 6)])  # Each replica is traced once.

    @tf.function(autograph=False)
    def on_replica():
        rows = next(parts)
        values = [
            losses.SimCLRLoss(reduction=None)(None, tf.constant(features[rows])),
            losses.SoftSupConLoss(reduction=None)(tf.constant(MIXED[rows]), features[rows]),
        ]
        return tf.stack(values, axis=1)

    strategy = two_replicas()
    found = np.concatenate(strategy.experimental_local_results(strategy.run(on_replica)))
    whole = (
        losses.SimCLRLoss(reduction=None)(None, features),
        losses.SoftSupConLoss(reduction=None)(MIXED[:6], features),
    )
    np.testing.assert_allclose(found, np.stack(whole, axis=1), rtol=1e-5)


def test_equal_parts_of_a_denominator_share_the_gradient():
    # Two class scores and two contrast rows, all 0: the softmax is 1/4 each.
    features, logits = tf.eye(3)[:, None], tf.zeros([3, 2])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = losses.parametric_supcon_loss([0, 1, 0], logits, features, alpha=0.0)
    np.testing.assert_allclose(values, np.log([4.0, 4.0, 4.0]), rtol=1e-6)
    expected = 1 / 4 - np.eye(2)[[0, 1, 0]]
    np.testing.assert_allclose(tape.gradient(values, logits), expected, rtol=1e-5)


def test_a_projection_of_zeros_has_no_gradient():
    features = tf.constant(features_of(6) * (np.arange(6) != 2)[:, None, None], tf.float32)
    _, gradient = value_and_gradient(
        functools.partial(losses.supcon_loss, NUMBERS["unbalanced"][:6]), features
    )
    assert not gradient[2].any()
    assert np.abs(gradient).max() < 100


batches = st.tuples(st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**16))


def random_batch(batch, num_classes=3):
    num_samples, num_views, seed = batch
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_samples, num_views, 5)).astype(np.float32)
    return rng.integers(num_classes, size=num_samples), features


def assert_same(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None)
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


@settings(max_examples=10, deadline=None)
@given(batches)
def test_sincere_is_one_positive_and_a_margin_lowers_it(batch):
    labels, features = random_batch(batch)
    actual = losses.SINCERELoss(reduction=None, scale_by_temperature=False).call(labels, features)
    values = family_reference.margin(labels, features, temperature=0.1, margin=0.0)
    shares = (labels[:, None] == labels[None, :]).sum(1) + features.shape[1] - 1 > 1
    assert_same(actual, values / max(np.mean(shares), 1e-9))
    # A margin makes the positive's part of the denominator smaller, and so the loss.
    without = losses.supcon_loss(labels, features, denominator="one_positive")
    with_margin = losses.supcon_loss(labels, features, denominator="one_positive", margin=0.5)
    assert (with_margin.numpy() <= without.numpy() + 1e-6).all()


@settings(max_examples=10, deadline=None)
@given(batches, st.sampled_from([0.0, 0.2]))
def test_parametric_with_alpha_and_gamma_0_is_cross_entropy(batch, smoothing):
    labels, features = random_batch(batch)
    logits = np.random.default_rng(1).normal(size=(len(labels), 3)).astype(np.float32)
    actual = losses.parametric_supcon_loss(
        labels, logits, features, alpha=0.0, gamma=0.0, label_smoothing=smoothing
    )
    expected = losses.CrossEntropyLoss(label_smoothing=smoothing, reduction=None)(labels, logits)
    assert_same(actual, expected)


@settings(max_examples=10, deadline=None)
@given(batches)
def test_parametric_without_class_scores_is_supcon(batch):
    labels, features = random_batch(batch)
    logits = np.full((len(labels), 3), -1e4, np.float32)
    actual = losses.parametric_supcon_loss(labels, logits, features, alpha=1.0, beta=0.0)
    assert_same(0.1 * actual, losses.supcon_loss(labels, features))


def test_balanced_with_rows_at_their_centers_averages_over_classes():
    # Every row of a class is at its centre: the class means are e and 1.
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


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("labels", ["numbers", "overlap"])
def test_a_detached_contrast_set_gives_the_anchors_gradient_only(labels, normalize, implementation):
    features, temperature = features_of(), 0.5
    rows = NUMBERS["unbalanced"] if labels == "numbers" else SEVERAL
    memberships = SEVERAL if labels == "overlap" else np.eye(4)[rows]

    def call(x, t):
        return losses.supcon_loss(
            rows,
            x,
            temperature=t,
            multi_label="overlap" if labels == "overlap" else "any",
            contrast_gradient=False,
            normalize=normalize,
            implementation=implementation,
            **SCALED,
        )

    still = reference.normalized(features) if normalize else features.astype(np.float64)
    names = list(np.ndindex(features.shape[:2]))

    def loss_of_moved_anchors(moved, t):
        """The sum of the losses where only the anchors move."""
        total = 0.0
        anchors = reference.normalized(moved) if normalize else moved
        for name in names:
            others = [other for other in names if other != name]
            s = [float(anchors[name] @ still[other]) / t for other in others]
            weights = [float(memberships[name[0]] @ memberships[other[0]]) for other in others]
            if sum(weights):
                total += reference.log_sum_exp(s) - np.dot(weights, s) / sum(weights)
        return total / features.shape[1]

    _, gradient = value_and_gradient(lambda x: call(x, temperature), features)
    slopes = reference.finite_differences(
        lambda moved: loss_of_moved_anchors(moved, temperature), features
    )
    assert relative_difference(gradient, slopes) <= 2e-5
    # The temperature divides both sides.
    _, gradient = value_and_gradient(lambda t: call(features, t), np.float32(temperature))
    slope = reference.finite_differences(
        lambda t: loss_of_moved_anchors(features.astype(np.float64), float(t)), temperature
    )
    assert relative_difference(gradient, slope) <= 1e-4


def test_simclr_with_a_detached_contrast_set_has_half_the_gradient():
    # s_ij is symmetric, so the two sides' gradients are equal where all exponentials are.
    features = np.eye(6, 4 * 3, dtype=np.float32).reshape(3, 2, 12)
    whole, anchors = (
        value_and_gradient(
            lambda x, flag=flag: losses.SimCLRLoss(contrast_gradient=flag)(None, x), features
        )[1]
        for flag in (True, False)
    )
    assert np.abs(anchors).max() > 0.01
    np.testing.assert_allclose(anchors, whole / 2, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_huge_and_excluding_logits_are_exact(shift):
    logits = np.float32(shift) + LOGITS
    labels, features = NUMBERS["unbalanced"], features_of()
    actual = losses.parametric_supcon_loss(labels, logits, features, alpha=0.0, gamma=0.0)
    _, expected = parametric_case(labels, logits, alpha=0.0, gamma=0.0)
    np.testing.assert_allclose(actual, expected(features, temperature=0.1), rtol=2e-5)
    # A logit of -inf excludes a class.
    excluding = np.where(np.arange(4) == 2, -np.inf, LOGITS).astype(np.float32)
    values, gradient = value_and_gradient(
        lambda x: losses.parametric_supcon_loss(labels, excluding, x), features
    )
    renumbered, three = np.where(labels == 3, 2, labels), np.delete(LOGITS, 2, axis=1)
    without = losses.parametric_supcon_loss(renumbered, three, features)
    np.testing.assert_allclose(values, without, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_a_mask_of_another_size_is_an_error_in_a_graph_of_unknown_sizes():
    spec = [tf.TensorSpec([None, None], tf.bool), tf.TensorSpec([None, 2, 5])]
    loss = tf.function(
        lambda mask, x: losses.supcon_loss(None, x, positive_mask=mask), input_signature=spec
    )
    assert loss(np.eye(7, dtype=bool), features_of()).shape == [7]
    for shape in ((9, 7), (7, 1), (1, 7)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            loss(np.ones(shape, bool), features_of())


@pytest.mark.parametrize(
    # Batches of unknown size stream unless told otherwise.
    "implementation",
    [pytest.param("dense", marks=pytest.mark.slow), "streaming"],
)
def test_batches_of_unknown_size_and_labels_in_a_graph_equal_eager(implementation):
    features, labels = features_of(), NUMBERS["unbalanced"].astype(np.int64)
    options = {"temperature": 0.2, "implementation": implementation}
    cases = [
        (lambda y, x: losses.soft_supcon_loss(y, x, **options), MIXED.astype(np.float32)),
        (lambda y, x: losses.balanced_supcon_loss(y, x, CENTERS, **options), labels),
        (lambda y, x: losses.parametric_supcon_loss(y, x[:, 0, :4], x, **options), labels),
    ]
    for function, targets in cases:
        specs = [
            tf.TensorSpec([None, *targets.shape[1:]], targets.dtype),
            tf.TensorSpec([None, 2, 5]),
        ]
        graph = tf.function(function, input_signature=specs, autograph=False)
        actual = value_and_gradient(functools.partial(graph, targets), features)
        expected = value_and_gradient(functools.partial(function, targets), features)
        assert relative_difference(actual[0], expected[0]) <= 1e-5
        assert relative_difference(actual[1], expected[1]) <= 1e-5


def test_wrong_labels_give_nan_with_xla():
    for function in (
        lambda y, x: losses.balanced_supcon_loss(y, x, CENTERS),
        lambda y, x: losses.parametric_supcon_loss(y, x[:, 0, :4], x),
        lambda y, x: losses.soft_supcon_loss(tf.one_hot(y, 9) - 0.5, x),
    ):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        assert np.isnan(compiled(tf.constant([7] * 7), features_of())).all()


class Centers(keras.layers.Layer):
    """Passes its input on, and has centres of three classes."""

    def build(self, _):
        self.kernel = self.add_weight(shape=(3, 4), initializer="glorot_normal", name="kernel")

    def call(self, inputs):
        return inputs

    def centers(self):
        return self.kernel.value


@pytest.mark.parametrize("replicas", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_trains_the_centers_of_a_balanced_loss(replicas):
    labels = np.arange(24) % 3
    views = np.eye(4)[labels][:, None] + 0.1 * np.random.default_rng(0).normal(size=(24, 2, 4))
    strategy = two_replicas() if replicas else tf.distribute.get_strategy()
    with strategy.scope():
        layer = Centers()
        model = keras.Sequential([keras.Input((2, 4)), keras.layers.Dense(4), layer])
        model.compile("sgd", losses.BalancedSupConLoss(layer.centers), jit_compile=False)
    before = layer.kernel.numpy().copy()
    history = model.fit(views.astype(np.float32), labels, batch_size=24, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert not np.array_equal(before, layer.kernel.numpy())


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
    with pytest.raises(UserError, match="has no centres: compile the model with"):
        restored(np.zeros(7, int), features_of())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: losses.soft_supcon_loss([0, 1], x), r"must be rows \[N, C\].*supcon_loss takes"),
        (lambda x: losses.soft_supcon_loss([[1.0, 0.0], [-1.0, 0.0]], x), "finite numbers >= 0"),
        (lambda x: losses.soft_supcon_loss([[0], [1]], x), "supcon_loss takes class numbers"),
        (lambda x: losses.soft_supcon_loss([[3, 3], [4, 4]], x), "must be 0 or 1: give weights as"),
        (lambda x: losses.ParametricSupConLoss(2, log_prior=[0.0, -np.inf]), "log_prior must be"),
        (lambda x: losses.parametric_supcon_loss([0, 1], np.eye(2, dtype="f"), x,
                                                 log_prior=[0.0, -np.inf]), "must be finite"),
        (lambda x: losses.supcon_loss(None, x, positive_mask=np.eye(2, dtype=bool),
                                      multi_label="overlap"), "multi_label is for rows of labels"),
        (lambda x: losses.contrast_set_supcon_loss([0, 1], x, [0], x[0, :1], margin=0.1,
                                                   denominator="only_negatives"), "margin needs"),
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
        (lambda x: losses.balanced_supcon_loss([0, 0], x, np.ones((1, 5), "f")), "at least two classes"),
        (lambda x: losses.CrossEntropyLoss(log_prior=[0.9, 0.1]), "logs of shares, <= 0: give .* got 0.9"),
        (lambda x: losses.CrossEntropyLoss(log_prior=1.0), "numbers, 'source' or None, got 1.0"),
        (lambda x: losses.contrast_set_supcon_loss([0, 1], x, [0, 1], x[0], contrast_mask=[True]),
         r"contrast_mask must be bool \[2\]"),
        (lambda x: losses.contrast_set_supcon_loss([0, 1], x, [0, 1], x[0], contrast_mask=[0.5, 1.0]),
         "got float32"),
    ],
)  # fmt: skip
def test_invalid_input_is_a_one_line_error(call, says):
    with pytest.raises(UserError, match=says) as raised:
        call(features_of(2))
    assert "\n" not in str(raised.value)
