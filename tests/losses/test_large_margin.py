"""Large-margin softmax compared with float64 loops over the angle; edge cases and training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from supcon_tf.errors import UserError
from supcon_tf.losses import LargeMarginSoftmaxLoss, MarginAnnealing, large_margin_softmax_loss
from supcon_tf.models.large_margin_head import LargeMarginHead
from tests import reference
from tests.losses.gradients import relative_difference

MARGINS = (1, 2, 3, 4)


def batch_of(num_samples=12, dim=5, num_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_samples)
    embeddings = rng.normal(size=(num_samples, dim)).astype(np.float32)
    return labels, embeddings, rng.normal(size=(dim, num_classes)).astype(np.float32)


def value_and_gradients(labels, embeddings, kernel, function=large_margin_softmax_loss, **options):
    embeddings, kernel = tf.constant(embeddings), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([embeddings, kernel])
        values = function(labels, embeddings, kernel, **options)
        total = tf.reduce_sum(values)
    gradients = tape.gradient(total, [embeddings, kernel])
    return values.numpy(), [gradient.numpy() for gradient in gradients]


def at_angles(thetas, length=1.0):
    """Embeddings at angles to the first of two orthogonal class vectors, all of label 0."""
    thetas = np.asarray(thetas, np.float64)
    embeddings = np.stack([np.cos(thetas), np.sin(thetas)], axis=1) * length
    return np.zeros(len(thetas), int), embeddings.astype(np.float32), np.eye(2, dtype=np.float32)


def psi_of(thetas, margin):
    """psi computed from the loss, which subtracts the true score."""
    labels, embeddings, kernel = at_angles(thetas)
    values = large_margin_softmax_loss(labels, embeddings, kernel, margin=margin).numpy()
    # loss = log(exp(psi) + exp(other)) - psi, so psi = other - log(exp(loss) - 1).
    return embeddings[:, 1] - np.log(np.expm1(values.astype(np.float64)))


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("annealing", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("label_kind", ["ints", "one_hot"])
def test_values_and_gradients_equal_the_float64_loop_over_the_angle(margin, annealing, label_kind):
    numbers, embeddings, kernel = batch_of(num_samples=20)
    labels = numbers if label_kind == "ints" else np.eye(4)[numbers]
    options = {"margin": margin, "annealing": annealing}

    def expected(embeddings, kernel):
        return reference.large_margin_softmax(numbers, embeddings, kernel, **options)

    values, (of_embeddings, of_kernel) = value_and_gradients(labels, embeddings, kernel, **options)
    assert relative_difference(values, expected(embeddings, kernel)) <= 1e-5
    slopes = reference.finite_differences(lambda x: expected(x, kernel).sum(), embeddings)
    assert relative_difference(of_embeddings, slopes) <= 1e-5
    slopes = reference.finite_differences(lambda w: expected(embeddings, w).sum(), kernel)
    assert relative_difference(of_kernel, slopes) <= 1e-5


@pytest.mark.parametrize("margin", MARGINS)
def test_the_random_batch_covers_every_piece_of_psi(margin):
    labels, embeddings, kernel = batch_of(num_samples=20)
    vectors = kernel.T[labels]
    cosines = np.sum(embeddings * vectors, axis=1)
    cosines /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(vectors, axis=1)
    pieces = set((np.arccos(cosines) * margin / np.pi).astype(int).tolist())
    assert pieces == set(range(margin))


@pytest.mark.parametrize("label_kind", ["ints", "one_hot", "mixed"])
def test_margin_1_is_plain_softmax_cross_entropy(label_kind):
    numbers, embeddings, kernel = batch_of()
    rows = np.eye(4)[numbers]
    if label_kind == "mixed":
        rows = 0.3 * rows + 0.7 * rows[::-1]
    labels = numbers if label_kind == "ints" else rows

    def cross_entropy(_, embeddings, kernel):
        return tf.nn.softmax_cross_entropy_with_logits(
            tf.constant(rows, tf.float32), embeddings @ kernel
        )

    for annealing in (0.0, 5.0):
        actual = value_and_gradients(labels, embeddings, kernel, margin=1, annealing=annealing)
        expected = value_and_gradients(labels, embeddings, kernel, cross_entropy)
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-6)
        for of_loss, of_cross_entropy in zip(actual[1], expected[1], strict=True):
            np.testing.assert_allclose(of_loss, of_cross_entropy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_is_continuous_and_decreasing(margin):
    thetas = np.linspace(0, np.pi, 2001)
    values = psi_of(thetas, margin)
    # At pi: (-1)^(m-1) cos(m pi) - 2 (m-1) = -1 - 2 (m-1).
    np.testing.assert_allclose(values[[0, -1]], [1.0, 1.0 - 2.0 * margin], atol=1e-5)
    steps = np.diff(values)
    assert (steps < 1e-5).all()
    # The slope of cos(m theta) is at most m.
    assert (np.abs(steps) <= margin * np.pi / 2000 + 1e-5).all()


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_is_at_most_the_cosine(margin):
    thetas = np.linspace(0, np.pi, 500)
    assert (psi_of(thetas, margin) <= np.cos(thetas) + 1e-5).all()


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("theta", [0.0, np.pi, np.pi / 4, np.pi / 3, np.pi / 2])
def test_values_and_gradients_are_exact_where_the_pieces_meet(margin, theta):
    labels, embeddings, kernel = at_angles([theta], length=2.0)
    values, (of_embeddings, _) = value_and_gradients(labels, embeddings, kernel, margin=margin)
    expected = reference.large_margin_softmax(labels, embeddings, kernel, margin=margin)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    # Tangential slope psi'(theta), which is 0 except where cos(m theta) = 0; radial slope psi.
    probability = np.exp(-values[0])
    psi, slope = psi_of_one(theta, margin)
    radius = np.array([np.cos(theta), np.sin(theta)])
    tangent = np.array([-np.sin(theta), np.cos(theta)])
    gradient = (1 - probability) * (np.array([0.0, 1.0]) - psi * radius - slope * tangent)
    np.testing.assert_allclose(of_embeddings[0], gradient, rtol=1e-4, atol=1e-5)


def psi_of_one(theta, margin):
    """psi and its derivative at an angle."""
    piece = min(int(theta * margin / np.pi), margin - 1)
    return reference.psi(theta, margin), -((-1) ** piece) * margin * np.sin(margin * theta)


EXTREMES = {
    "zero embeddings": (np.zeros((4, 2)), np.eye(2)),
    "zero class vectors": (np.ones((4, 2)), np.zeros((2, 2))),
    "both zero": (np.zeros((4, 2)), np.zeros((2, 2))),
    "along the class vector": (np.tile([3.0, 0.0], (4, 1)), np.eye(2)),
    "against the class vector": (np.tile([-3.0, 0.0], (4, 1)), np.eye(2)),
    "lengths of 1e15": (np.random.default_rng(0).normal(size=(4, 2)) * 1e15, np.eye(2) * 1e15),
    "lengths of 1e-30": (np.random.default_rng(0).normal(size=(4, 2)) * 1e-30, np.eye(2) * 1e-30),
}


@pytest.mark.parametrize("case", list(EXTREMES))
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("annealing", [0.0, 1000.0])
def test_values_and_gradients_are_finite_for_extreme_vectors(case, margin, annealing):
    embeddings, kernel = (array.astype(np.float32) for array in EXTREMES[case])
    for labels in ([0, 0, 1, 1], np.eye(2)[[0, 0, 1, 1]], np.full((4, 2), 0.5)):
        options = {"margin": margin, "annealing": annealing}
        values, gradients = value_and_gradients(labels, embeddings, kernel, **options)
        assert np.isfinite(values).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_loss_of_a_zero_embedding_is_the_logarithm_of_the_number_of_classes():
    values = large_margin_softmax_loss([0, 2], np.zeros((2, 5), np.float32), batch_of()[2])
    np.testing.assert_allclose(values, np.full(2, np.log(4)), rtol=1e-6)


def test_annealing_goes_from_plain_cross_entropy_to_the_full_margin():
    labels, embeddings, kernel = batch_of()
    plain = large_margin_softmax_loss(labels, embeddings, kernel, margin=1).numpy()
    full = large_margin_softmax_loss(labels, embeddings, kernel).numpy()
    np.testing.assert_allclose(
        large_margin_softmax_loss(labels, embeddings, kernel, annealing=1e9), plain, rtol=1e-5
    )
    between = [
        large_margin_softmax_loss(labels, embeddings, kernel, annealing=annealing).numpy()
        for annealing in (100.0, 1.0, 0.1)
    ]
    for lower, upper in zip([plain, *between], [*between, full], strict=True):
        assert (lower < upper).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_any_float_dtype_gives_the_float32_values_of_the_same_numbers(dtype):
    labels, embeddings, kernel = batch_of()
    embeddings, kernel = tf.cast(embeddings, dtype), tf.cast(kernel, dtype)
    values, gradients = value_and_gradients(labels, embeddings, kernel)
    assert values.dtype == np.float32
    expected = reference.large_margin_softmax(
        labels, tf.cast(embeddings, tf.float64).numpy(), tf.cast(kernel, tf.float64).numpy()
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert gradients[0].dtype == embeddings.dtype.as_numpy_dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_class_numbers_may_have_any_integer_dtype_and_a_trailing_axis(dtype):
    labels, embeddings, kernel = batch_of()
    expected = large_margin_softmax_loss(labels, embeddings, kernel)
    for same in (labels.astype(dtype), labels.astype(dtype)[:, None]):
        np.testing.assert_array_equal(large_margin_softmax_loss(same, embeddings, kernel), expected)


@pytest.mark.parametrize(("jit_compile", "label_kind"), [(False, "one_hot"), (True, "ints")])
def test_graph_and_compiled_execution_equal_eager(jit_compile, label_kind):
    labels, embeddings, kernel = batch_of()
    labels = labels if label_kind == "ints" else np.eye(4)[labels]
    compiled = tf.function(
        lambda x, w: large_margin_softmax_loss(labels, x, w), jit_compile=jit_compile
    )
    actual = value_and_gradients(labels, embeddings, kernel, lambda _, x, w: compiled(x, w))
    expected = value_and_gradients(labels, embeddings, kernel)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    for compiled_gradient, gradient in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(compiled_gradient, gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_class_on_the_head_equals_the_function():
    labels, embeddings, _ = batch_of()
    head = LargeMarginHead(4)
    outputs = head(embeddings)
    loss = LargeMarginSoftmaxLoss(margin=3, annealing=2.0, reduction=None)
    expected = large_margin_softmax_loss(labels, embeddings, head.kernel, margin=3, annealing=2.0)
    np.testing.assert_allclose(loss(labels, outputs), expected, rtol=1e-6)
    np.testing.assert_allclose(
        outputs[..., 0], embeddings @ head.kernel.numpy(), rtol=1e-5, atol=1e-6
    )
    weights = np.linspace(0, 2, len(labels)).astype(np.float32)
    np.testing.assert_allclose(
        LargeMarginSoftmaxLoss(margin=3, annealing=2.0)(labels, outputs, weights),
        np.mean(weights * expected),
        rtol=1e-6,
    )


def test_the_head_is_float32_under_a_mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = LargeMarginHead(4)
        outputs = head(tf.constant(batch_of()[1], tf.bfloat16))
    finally:
        keras.config.set_dtype_policy("float32")
    assert outputs.dtype == tf.float32
    rounded = tf.cast(tf.constant(batch_of()[1], tf.bfloat16), tf.float32)
    np.testing.assert_allclose(outputs[..., 0], rounded @ head.kernel.numpy(), rtol=1e-5, atol=1e-6)


def test_the_head_is_restored_from_its_config():
    head = LargeMarginHead(4, name="mine")
    restored = keras.layers.deserialize(keras.layers.serialize(head))
    assert type(restored) is LargeMarginHead
    assert restored.get_config() == head.get_config()
    assert restored.compute_output_shape((None, 5)) == (None, 4, 2)


def test_the_loss_is_restored_from_its_config():
    loss = LargeMarginSoftmaxLoss(margin=2, annealing=0.1, reduction="sum", name="mine")
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(restored) is LargeMarginSoftmaxLoss
    assert restored.get_config() == loss.get_config()
    assert loss.get_config()["annealing"] == 0.1
    arguments = set(LargeMarginSoftmaxLoss.__init__.__annotations__) - {"return"}
    assert set(loss.get_config()) == arguments


class Recorder(keras.callbacks.Callback):
    """Records lambda at each step."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.annealing = loss, []

    def on_train_batch_end(self, batch, logs=None):
        self.annealing.append(float(self.loss.annealing.numpy()))


def test_lambda_decays_exponentially_and_continues_after_a_resume():
    labels, embeddings, _ = batch_of(num_samples=8)
    model = keras.Sequential([keras.Input((5,)), LargeMarginHead(4)])
    loss = LargeMarginSoftmaxLoss(annealing=1000.0)
    model.compile("sgd", loss)
    recorder = Recorder(loss)
    callbacks = [MarginAnnealing(steps=4, start=1000.0, end=0.1), recorder]
    model.fit(embeddings, labels, batch_size=4, epochs=1, callbacks=callbacks, verbose=0)
    resumed = [MarginAnnealing(steps=4, start=1000.0, end=0.1), recorder]
    model.fit(embeddings, labels, batch_size=4, epochs=2, callbacks=resumed, verbose=0)
    expected = [1000.0, 100.0, 10.0, 1.0, 0.1, 0.1]
    np.testing.assert_allclose(recorder.annealing, expected, rtol=1e-6)


def test_annealing_finds_the_loss_among_several_outputs():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, {"margin": LargeMarginHead(4)(inputs), "features": inputs})
    loss = LargeMarginSoftmaxLoss()
    model.compile("sgd", {"margin": loss, "features": None})
    labels, embeddings, _ = batch_of()
    model.fit(
        embeddings,
        {"margin": labels, "features": labels},
        callbacks=[MarginAnnealing(steps=10, start=7.0)],
        verbose=0,
    )
    np.testing.assert_allclose(loss.annealing, 7.0)


def test_annealing_rejects_a_model_without_the_loss():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="MarginAnnealing needs a LargeMarginSoftmaxLoss"):
        model.fit(
            np.zeros((2, 5)), np.zeros((2, 4)), callbacks=[MarginAnnealing(steps=1)], verbose=0
        )


def test_a_small_network_learns_the_digits_with_an_annealed_margin():
    images, labels = load_digits(return_X_y=True)
    images, held_out_images, labels, held_out_labels = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=517, random_state=0, stratify=labels
    )
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    outputs = LargeMarginHead(10)(hidden)
    model = keras.Model(inputs, {"margin": outputs, "scores": outputs[..., 0]})
    model.compile(
        keras.optimizers.Adam(0.005), {"margin": LargeMarginSoftmaxLoss(margin=4), "scores": None}
    )
    # 1280 images are 20 steps of 64.
    model.fit(
        images,
        {"margin": labels, "scores": labels},
        batch_size=64,
        epochs=15,
        callbacks=[MarginAnnealing(steps=15 * 20)],
        verbose=0,
    )
    scores = model.predict(held_out_images, verbose=0)["scores"]
    assert np.mean(scores.argmax(axis=1) == held_out_labels) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 5}, r"margin must be one of \(1, 2, 3, 4\), got 5"),
        ({"margin": 0}, r"margin must be one of \(1, 2, 3, 4\), got 0"),
        ({"annealing": -1.0}, "annealing must be a number >= 0, got -1.0"),
        ({"annealing": float("nan")}, "annealing must be a number >= 0, got nan"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        large_margin_softmax_loss(*batch_of(), **options)
    with pytest.raises(ValueError, match=message):
        LargeMarginSoftmaxLoss(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a number > 0, got 0"),
        ({"steps": 5, "start": 0.0}, "start must be a number > 0, got 0.0"),
        ({"steps": 5, "end": -1.0}, "end must be a number > 0, got -1.0"),
    ],
)
def test_invalid_schedules_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        MarginAnnealing(**options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0], r"integers \[N\] or rows \[N, 4\], got float32 of shape \(2,\)"),
        (np.eye(3)[:2], r"or rows \[N, 4\], got float64 of shape \(2, 3\)"),
        (np.zeros((2, 4, 1)), r"got float64 of shape \(2, 4, 1\)"),
    ],
)
def test_invalid_labels_are_rejected(labels, message):
    _, embeddings, kernel = batch_of(num_samples=2)
    with pytest.raises(ValueError, match=message):
        large_margin_softmax_loss(labels, embeddings, kernel)


def test_class_numbers_out_of_range_are_rejected():
    _, embeddings, kernel = batch_of(num_samples=2)
    for labels in ([0, 4], [-1, 0], [[0.0], [4.0]]):
        with pytest.raises(UserError, match=r"class numbers must be in \[0, 4\); got values from"):
            large_margin_softmax_loss(labels, embeddings, kernel)
    in_graph = tf.function(large_margin_softmax_loss)
    with pytest.raises(tf.errors.InvalidArgumentError, match="class numbers must be in"):
        in_graph([0, 4], embeddings, kernel)


def test_a_single_class_is_rejected():
    with pytest.raises(UserError, match="of one score is always 0: use BinaryCrossEntropyLoss"):
        large_margin_softmax_loss([0, 0], np.ones((2, 3)), np.ones((3, 1)))


def test_the_current_lambda_is_saved():
    loss = LargeMarginSoftmaxLoss(annealing=1000.0)
    loss.annealing.assign(12.3)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    np.testing.assert_allclose(restored.annealing, 12.3, rtol=1e-6)


def test_plain_logits_are_rejected():
    with pytest.raises(ValueError, match=r"got shape \(2, 4\); use models.LargeMarginHead"):
        LargeMarginSoftmaxLoss()([0, 1], tf.zeros([2, 4]))


def test_embeddings_of_another_rank_are_rejected():
    labels, embeddings, kernel = batch_of(num_samples=2)
    with pytest.raises(
        ValueError, match=r"must be \[N, D\] .* got shapes \(2, 1, 5\) and \(5, 4\)"
    ):
        large_margin_softmax_loss(labels, embeddings[:, None], kernel)
