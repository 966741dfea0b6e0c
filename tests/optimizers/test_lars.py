import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.optimizers import LARS, warmup_schedule
from tests.replicas import two_replicas

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 20


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def lars_loop(
    weights,
    gradients,
    *,
    learning_rate=1.0,
    momentum=0.9,
    weight_decay=0.0,
    trust_coefficient=0.001,
    nesterov=False,
    adapted=True,
):
    """The equations of the docstring in float64, one step per gradient."""
    w = weights.astype("float64")
    v = np.zeros_like(w)
    rates = learning_rate if callable(learning_rate) else lambda step: learning_rate
    for step, g in enumerate(gradients.astype("float64")):
        d, ratio = g, 1.0
        if adapted:
            d = g + weight_decay * w
            norms = np.sqrt((w**2).sum()), np.sqrt((d**2).sum())
            if norms[0] > 0 and norms[1] > 0:
                ratio = trust_coefficient * norms[0] / norms[1]
        v = momentum * v + rates(step) * ratio * d
        w = w - (momentum * v + rates(step) * ratio * d if nesterov else v)
    return w


def random_problem(*shape):
    random = np.random.default_rng(0)
    return (
        random.normal(size=shape).astype("float32"),
        random.normal(size=(STEPS, *shape)).astype("float32"),
    )


def variable_named(path, value):
    layer, name = path.split("/")
    with keras.name_scope(layer):
        return keras.Variable(value, name=name)


def run(optimizer, weights, gradients, *, path="conv/kernel", wrap=lambda function: function):
    variable = variable_named(path, weights)
    optimizer.build([variable])
    step = wrap(lambda gradient: optimizer.apply([gradient], [variable]))
    for gradient in gradients:
        step(tf.constant(gradient))
    return variable.numpy()


def assert_relatively_close(actual, expected):
    assert np.abs(actual - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_twenty_steps_follow_the_equations(momentum, weight_decay, nesterov):
    weights, gradients = random_problem(3, 3, 2, 4)
    options = {
        "momentum": momentum,
        "weight_decay": weight_decay,
        "trust_coefficient": 0.02,
        "nesterov": nesterov,
    }
    actual = run(LARS(0.7, **options), weights, gradients)
    expected = lars_loop(weights, gradients, learning_rate=0.7, **options)
    assert_relatively_close(actual, expected)
    assert np.abs(expected - weights).max() > 0.01


def test_weight_decay_is_applied_once_and_scaled_by_the_trust_ratio():
    weights = np.float32([3.0, 4.0])
    still = np.zeros((1, 2), "float32")
    # d = wd w has the direction of w for any wd, so w shrinks by learning rate x trust.
    actual = run(LARS(0.5, weight_decay=1e-4, trust_coefficient=0.01), weights, still)
    np.testing.assert_allclose(actual, weights * (1 - 0.5 * 0.01), rtol=1e-6)


@pytest.mark.parametrize("path", ["bn/gamma", "bn/beta", "group1_bn1/gamma"])
def test_normalisation_variables_get_plain_momentum(path):
    weights, gradients = random_problem(5)
    actual = run(LARS(0.1, weight_decay=0.3), weights, gradients, path=path)
    expected = lars_loop(weights, gradients, learning_rate=0.1, adapted=False)
    assert_relatively_close(actual, expected)


@pytest.mark.parametrize(
    ("exclude", "path", "adapted"),
    [
        ((), "bn/gamma", True),
        ((r"/bias$",), "dense/bias", False),
        ((r"/bias$",), "dense/bias_correction", True),
        (("nothing", "^classifier/"), "classifier/kernel", False),
        (("nothing", "^classifier/"), "my_classifier/kernel", True),
    ],
)
def test_exclusion_searches_the_path_of_the_variable(exclude, path, adapted):
    weights, gradients = random_problem(5)
    actual = run(LARS(0.1, weight_decay=0.3, exclude=exclude), weights, gradients, path=path)
    expected = lars_loop(weights, gradients, learning_rate=0.1, weight_decay=0.3, adapted=adapted)
    assert_relatively_close(actual, expected)


@pytest.mark.parametrize("zero", ["weights", "gradients"])
def test_trust_ratio_is_one_where_a_norm_is_zero(zero):
    weights, gradients = random_problem(5)
    gradients = gradients[:1]
    if zero == "weights":
        weights = np.zeros_like(weights)
    else:
        gradients = np.zeros_like(gradients)
    actual = run(LARS(0.1), weights, gradients)
    np.testing.assert_allclose(actual, weights - 0.1 * gradients[0], rtol=1e-6)


@pytest.mark.parametrize("make", [keras.optimizers.SGD, LARS])
def test_sgd_and_lars_have_the_learning_rate_inside_the_momentum(make):
    weights, gradients = random_problem(4)
    options = {"exclude": (".*",)} if make is LARS else {}
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([9], [0.1, 0.01])
    actual = run(make(schedule, momentum=0.9, **options), weights, gradients)

    inside, outside = weights.astype("float64"), weights.astype("float64")
    v_inside, v_outside = np.zeros(4), np.zeros(4)
    for step, gradient in enumerate(gradients.astype("float64")):
        rate = 0.1 if step <= 9 else 0.01
        v_inside = 0.9 * v_inside + rate * gradient
        inside = inside - v_inside
        v_outside = 0.9 * v_outside + gradient
        outside = outside - rate * v_outside
    np.testing.assert_allclose(actual, inside, rtol=1e-5, atol=1e-6)
    assert np.abs(actual - outside).max() > 0.01


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_steps_follow_a_schedule(jit_compile):
    weights, gradients = random_problem(3, 4)
    schedule = warmup_schedule(
        base_learning_rate=1.0,
        batch_size=512,
        steps_per_epoch=10,
        epochs=2,
        warmup_epochs=1,
    )

    def rate(step):
        return 2 * step / 10 if step < 10 else 1 + np.cos(np.pi * (step - 10) / 10)

    actual = run(
        LARS(schedule, weight_decay=0.1, trust_coefficient=0.02),
        weights,
        gradients,
        wrap=lambda function: tf.function(function, jit_compile=jit_compile),
    )
    expected = lars_loop(
        weights, gradients, learning_rate=rate, weight_decay=0.1, trust_coefficient=0.02
    )
    assert_relatively_close(actual, expected)


def test_sparse_gradients_of_an_embedding_layer_follow_the_equations():
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    variable = variable_named("embedding/embeddings", weights)
    optimizer = LARS(0.7, weight_decay=0.1, trust_coefficient=0.02)
    optimizer.build([variable])
    # Rows 2 and 0 of four; row 2 twice.
    rows = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    optimizer.apply([tf.IndexedSlices(rows, [2, 0, 2], [4, 3])], [variable])
    dense = np.zeros((1, 4, 3), "float32")
    dense[0, 2], dense[0, 0] = rows[0] + rows[2], rows[1]
    expected = lars_loop(
        weights, dense, learning_rate=0.7, weight_decay=0.1, trust_coefficient=0.02
    )
    assert_relatively_close(variable.numpy(), expected)


def test_bfloat16_variables_are_updated_in_float32():
    # 257 ones: a sum in bfloat16 would stop at 256.
    weights = np.ones(4096, "float32")
    variable = keras.Variable(weights, dtype="bfloat16", name="kernel")
    optimizer = LARS(1.0, momentum=0.0, trust_coefficient=0.25)
    optimizer.apply([tf.ones(4096, tf.bfloat16)], [variable])
    np.testing.assert_array_equal(keras.ops.cast(variable, "float32"), 0.75 * weights)


def test_config_holds_every_argument():
    schedule = warmup_schedule(base_learning_rate=0.3, batch_size=256, steps_per_epoch=2, epochs=3)
    options = {
        "momentum": 0.8,
        "weight_decay": 1e-4,
        "trust_coefficient": 0.01,
        "nesterov": True,
        "exclude": (r"/bias$", "^classifier/"),
        "name": "mine",
        "clipnorm": 3.0,
    }
    optimizer = LARS(schedule, **options)
    config = optimizer.get_config()
    assert options.items() <= config.items()
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, LARS)
    assert copy.get_config() == config

    weights, gradients = random_problem(5)
    np.testing.assert_array_equal(run(copy, weights, gradients), run(optimizer, weights, gradients))


def small_model():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, use_bias=False, name="hidden"),
            keras.layers.BatchNormalization(synchronized=True, name="bn"),
            keras.layers.Dense(2, name="out"),
        ]
    )
    model.compile(LARS(0.5, weight_decay=0.1, trust_coefficient=0.1), "mse")
    return model


def small_data():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 4)).astype("float32"), np.ones((8, 2), "float32")


def test_training_resumes_from_a_keras_file_exactly(tmp_path):
    model = small_model()
    data = small_data()
    model.fit(*data, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, resumed):
        each.fit(*data, batch_size=4, shuffle=False, verbose=0)
    for weight, resumed_weight in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, resumed_weight)


@pytest.mark.slow  # tests/models/test_distributed.py has a step of two workers with LARS.
def test_two_replicas_train_like_one_device():
    def trained(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = small_model()
        model.fit(*small_data(), batch_size=4, shuffle=False, verbose=0)
        return model.get_weights()

    alone, together = trained(tf.distribute.get_strategy()), trained(two_replicas())
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be a number >= 0, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number >= 0, got nan"),
        ({"nesterov": "False"}, "nesterov must be True or False, got 'False'"),
        ({"momentum": 1.0}, "momentum must be a number >= 0 and < 1, got 1.0"),
        ({"momentum": -0.1}, "momentum must be a number >= 0 and < 1, got -0.1"),
        ({"weight_decay": -0.1}, "weight_decay must be a number >= 0, got -0.1"),
        ({"weight_decay": None}, "weight_decay must be a number >= 0, got None"),
        ({"trust_coefficient": 0.0}, "trust_coefficient must be a number > 0, got 0.0"),
        ({"exclude": "bias"}, "exclude must be a sequence .* got 'bias'"),
        ({"exclude": ("(",)}, r"exclude must be regular expressions, got '\('"),
        ({"exclude": (1,)}, "exclude must be regular expressions, got 1"),
    ],
)
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        LARS(**({"learning_rate": 0.1} | options))
