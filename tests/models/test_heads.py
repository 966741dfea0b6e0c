import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.errors import UserError

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def bfloat16():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def embeddings(rows=6, dim=5):
    return np.random.default_rng(0).normal(size=(rows, dim)).astype("float32")


def kinds(head):
    return [type(layer).__name__ for layer in head.layers[1:]]


def test_projection_is_dense_relu_dense_without_last_bias_and_normalized():
    head = models.projection_head(5, units=(16, 3))
    head.set_weights([10 * weight + 0.1 for weight in head.get_weights()])
    kernel_1, bias_1, kernel_2 = (weight.astype("float64") for weight in head.get_weights())
    x = embeddings()
    hidden = np.maximum(x @ kernel_1 + bias_1, 0)
    expected = hidden @ kernel_2
    assert (hidden == 0).any()
    expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(head(x), expected, rtol=1e-5, atol=1e-6)


def test_unnormalized_projection_is_the_output_of_the_last_layer():
    head = models.projection_head(5, units=(3,), normalize=False)
    x = embeddings()
    np.testing.assert_allclose(head(x), x @ head.get_weights()[0], rtol=1e-5, atol=1e-7)


def test_batch_norm_replaces_the_bias_of_hidden_layers_only():
    head = models.projection_head(5, units=(7, 6, 3), batch_norm=True)
    hidden = ["Dense", "BatchNormalization", "ReLU"]
    assert kinds(head) == [*hidden, *hidden, "Dense", "L2Normalization"]
    assert [variable.path.split("/")[-1] for variable in head.trainable_variables] == [
        *["kernel", "gamma", "beta"] * 2,
        "kernel",
    ]
    norms = [layer for layer in head.layers if "BatchNorm" in type(layer).__name__]
    assert {(norm.momentum, norm.epsilon, norm.synchronized) for norm in norms} == {
        (0.9, 1e-5, True)
    }


def test_kernels_are_initialized_with_standard_deviation_one_hundredth():
    head = models.projection_head(300, units=(200, 100))
    for kernel in head.get_weights()[::2]:
        assert kernel.std() == pytest.approx(0.01, rel=0.03)
        # Not truncated at two deviations.
        assert np.abs(kernel).max() > 0.03


def pytorch_head(input_dim=400, units=(100, 30), **options):
    uniform = models.FanInUniform()
    return models.projection_head(
        input_dim,
        units=units,
        last_bias=True,
        kernel_initializer=uniform,
        bias_initializer=uniform,
        **options,
    )


def test_pytorch_initialization_is_uniform_within_the_root_of_the_fan_in():
    head = pytorch_head()
    kernel_1, bias_1, kernel_2, bias_2 = head.get_weights()
    for weights, fan_in in ((kernel_1, 400), (bias_1, 400), (kernel_2, 100), (bias_2, 100)):
        scaled = weights * np.sqrt(fan_in)
        assert np.abs(scaled).max() <= 1
        # A uniform distribution on [-1, 1] has deviation 1 / sqrt(3).
        error = 4 / np.sqrt(scaled.size)
        assert scaled.std() == pytest.approx(np.sqrt(1 / 3), rel=error)
        assert scaled.mean() == pytest.approx(0, abs=error)
    assert len(np.unique(kernel_1)) > 0.99 * kernel_1.size

    uniform = models.FanInUniform()
    classifier = models.classification_head(
        400, 30, kernel_initializer=uniform, bias_initializer=uniform
    )
    for weights in classifier.get_weights():
        assert 0.9 / 20 < np.abs(weights).max() <= 1 / 20


def test_layers_of_one_shape_get_different_weights_from_one_initializer():
    first, second = pytorch_head(50, (50, 50)).get_weights()[::2]
    assert not (first == second).any()
    first, second = pytorch_head(50, (50, 50)).get_weights()[1::2]
    assert not (first == second).any()


def test_last_bias_is_added_to_the_projection():
    head = pytorch_head(5, (16, 3), normalize=False)
    kernel_1, bias_1, kernel_2, bias_2 = head.get_weights()
    x = embeddings()
    expected = np.maximum(x @ kernel_1 + bias_1, 0) @ kernel_2 + bias_2
    np.testing.assert_allclose(head(x), expected, rtol=1e-5, atol=1e-6)


def test_options_of_initialization_are_checked():
    uniform = models.FanInUniform()
    for build, message in (
        (lambda: models.projection_head(5, last_bias=1), "last_bias must be True or False, got 1"),
        (
            lambda: models.projection_head(5, bias_initializer="onez"),
            "bias_initializer .* got 'onez'",
        ),
        (lambda: models.projection_head(5, kernel_initializer=3), "kernel_initializer .* got 3"),
        (
            lambda: models.classification_head(5, 3, zero_init=True, kernel_initializer=uniform),
            "kernel_initializer has no effect with zero_init = True, got .*: set zero_init = False",
        ),
        (
            lambda: models.classification_head(5, 3, bias_initializer=models.FanInUniform(seed=2)),
            "bias_initializer must have no seed",
        ),
        (lambda: uniform((5,)), r"fan_in must be an integer for a vector \(5,\), got None"),
        (lambda: models.FanInUniform(0), "fan_in must be an integer >= 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            build()


@pytest.mark.parametrize(
    ("units", "batch_norm", "expected"),
    [
        ((128,), False, 512 * 128),
        ((2048, 128), False, 513 * 2048 + 2048 * 128),
        ((2048, 2048, 128), True, (512 + 2) * 2048 + (2048 + 2) * 2048 + 2048 * 128),
    ],
)
def test_published_heads_have_the_parameters_of_the_formula(units, batch_norm, expected):
    head = models.projection_head(512, units=units, batch_norm=batch_norm)
    assert sum(int(np.prod(weight.shape)) for weight in head.trainable_variables) == expected


@pytest.mark.parametrize("jit_compile", [False, True])
def test_l2_normalization_has_no_gradient_at_zero(jit_compile):
    layer = models.L2Normalization()

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x)[:, 0])
        return tape.gradient(y, x)

    x = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    # d (x_0 / ||x||) / dx = (x_1^2, -x_0 x_1) / ||x||^3.
    np.testing.assert_allclose(gradient(x), [[0, 0], [16 / 125, -12 / 125]], rtol=1e-5)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("normalize", [True, False])
def test_bfloat16_heads_give_float32_normalized_in_float32(normalize):
    head = models.projection_head(5, units=(4, 3), normalize=normalize)
    assert head.get_layer("projection_head_dense2").compute_dtype == "bfloat16"
    projection = head(embeddings())
    assert projection.dtype == tf.float32
    lengths = np.linalg.norm(projection, axis=1)
    # A unit vector rounded to bfloat16 is off by some 1e-3.
    assert (np.abs(lengths - 1).max() < 1e-6) == normalize

    logits = models.classification_head(5, 3)(embeddings())
    assert logits.dtype == tf.float32


def test_classification_head_is_one_dense_layer_with_bias():
    head = models.classification_head(5, 3)
    kernel, bias = head.get_weights()
    x = embeddings()
    np.testing.assert_allclose(head(x), x @ kernel + bias, rtol=1e-5, atol=1e-6)
    assert [variable.path for variable in head.variables] == [
        "classifier/kernel",
        "classifier/bias",
    ]
    limit = np.sqrt(6 / (5 + 3))
    assert 0 < np.abs(kernel).max() <= limit


def test_zero_initialized_classifier_returns_zeros():
    head = models.classification_head(5, 3, zero_init=True)
    np.testing.assert_array_equal(head(embeddings()), np.zeros((6, 3)))


def test_trained_heads_survive_a_keras_file(tmp_path):
    x = embeddings()
    projection = models.projection_head(5, units=(7, 3), batch_norm=True)
    classifier = models.classification_head(5, 3)
    for head in (projection, classifier, pytorch_head(5, (7, 3))):
        head.compile("sgd", "mse")
        head.fit(x, np.ones((6, 3), "float32"), verbose=0)
        head.save(tmp_path / "head.keras")
        loaded = keras.models.load_model(tmp_path / "head.keras")
        np.testing.assert_array_equal(loaded(x), head(x))
        assert [variable.path for variable in loaded.variables] == [
            variable.path for variable in head.variables
        ]
        # Also what is drawn next.
        assert [layer.get_config() for layer in loaded.layers] == [
            layer.get_config() for layer in head.layers
        ]


def test_layer_sizes_that_are_not_positive_integers_are_rejected():
    for units, message in (
        ((), r"must be a sequence .* got \(\)"),
        (128, "must be a sequence .* got 128"),
        ("128", "must be a sequence .* got '128'"),
        ((0,), "must be an integer >= 1, got 0"),
        ((128, -1), "must be an integer >= 1, got -1"),
        ((2.5,), "must be an integer >= 1, got 2.5"),
        ((True,), "must be an integer >= 1, got True"),
    ):
        with pytest.raises(UserError, match=f"projection {message}"):
            models.projection_head(5, units=units)
