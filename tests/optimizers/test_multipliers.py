"""Learning-rate multipliers: each variable moves as under an optimizer with that rate."""

import keras
import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.optimizers import LARS, WarmupSchedule, multiply_learning_rates
from tests.replicas import two_replicas

OPTIMIZERS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "lars": lambda rate: LARS(rate, trust_coefficient=0.1, weight_decay=0.1),
    "adam": keras.optimizers.Adam,
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.9, epsilon=0.001),
}


def gradient(step):
    return np.random.default_rng(step).normal(size=3).astype("float32")


def variable(name):
    return keras.Variable(np.float32([1.0, -2.0, 3.0]), name=name)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_multiplied_variable_trains_as_with_the_multiplied_rate(make):
    low, high = variable("low_kernel"), variable("high_kernel")
    optimizer = make(0.5)
    optimizer.build([low, high])
    multiply_learning_rates(optimizer, [low, high], {"^low": 0.25})
    alone = {"low": (variable("a"), make(0.5 * 0.25)), "high": (variable("b"), make(0.5))}
    for step in range(4):
        optimizer.apply([gradient(step), gradient(step)], [low, high])
        for own, own_optimizer in alone.values():
            own_optimizer.apply([gradient(step)], [own])
    np.testing.assert_allclose(low.numpy(), alone["low"][0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(high.numpy(), alone["high"][0].numpy(), rtol=1e-5)
    assert not np.allclose(low.numpy(), high.numpy(), rtol=1e-2)


def fitted(*, multipliers, rate, **compile_options):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    optimizer = LARS(WarmupSchedule(rate, warmup_steps=2), trust_coefficient=0.05)
    optimizer.build(model.trainable_variables)
    if multipliers:
        multiply_learning_rates(optimizer, model.trainable_variables, multipliers)
    model.compile(optimizer, "mse", **compile_options)
    before = model.get_weights()
    x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
    model.fit(x, x[:, :3], batch_size=8, shuffle=False, verbose=0)
    return before, model.get_weights()


def test_xla_and_two_replicas_give_the_same_steps():
    expected = fitted(multipliers={"first/": 0.0, "second/kernel": 0.1}, rate=1.0)
    compiled = fitted(multipliers={"first/": 0.0, "second/kernel": 0.1}, rate=1.0, jit_compile=True)
    with two_replicas().scope():
        split = fitted(multipliers={"first/": 0.0, "second/kernel": 0.1}, rate=1.0)
    for after in (compiled[1], split[1]):
        for weight, same in zip(after, expected[1], strict=True):
            np.testing.assert_allclose(weight, same, rtol=1e-5, atol=1e-6)
    stayed = [np.array_equal(start, end) for start, end in zip(*expected, strict=True)]
    assert stayed == [True, True, False, False]


def test_first_matching_pattern_sets_the_multiplier():
    low, lower = variable("group1_kernel"), variable("group1_bias")
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([low, lower])
    multiply_learning_rates(optimizer, [low, lower], {"kernel": 0.5, "group1": 0.1})
    optimizer.apply([np.ones(3, "float32")] * 2)
    np.testing.assert_allclose(low.numpy(), [0.5, -2.5, 2.5])
    np.testing.assert_allclose(lower.numpy(), [0.9, -2.1, 2.9])
    with pytest.raises(UserError, match=r"multiplier of 'kernel' has no effect, .*: put it before"):
        multiply_learning_rates(optimizer, [low, lower], {"group1": 0.1, "kernel": 0.5})


def test_a_part_is_found_by_its_variables_and_not_by_their_paths():
    backbone, head = variable("head_like_kernel"), variable("conv1_kernel")
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([backbone, head])
    multiply_learning_rates(
        optimizer,
        [backbone, head],
        {"head": 0.5, "kernel": 0.1},
        parts={"encoder": [backbone], "head": [head]},
    )
    optimizer.apply([np.ones(3, "float32")] * 2)
    np.testing.assert_allclose(head.numpy(), [0.5, -2.5, 2.5])
    np.testing.assert_allclose(backbone.numpy(), [0.9, -2.1, 2.9])
    with pytest.raises(UserError, match="no variable matches 'decoder', known are encoder, head, "):
        multiply_learning_rates(
            optimizer, [backbone], {"decoder": 0.1}, parts={"encoder": [backbone], "head": [head]}
        )


def test_wrong_patterns_and_multipliers_are_rejected():
    low = variable("low_kernel")
    optimizer = keras.optimizers.SGD(1.0)
    for multipliers, message in (
        ({"hihg": 0.1}, "no variable matches 'hihg', known are low_kernel"),
        ({"low": -1}, "multiplier of 'low' must be a number >= 0, got -1"),
        ({"low": float("nan")}, "multiplier of 'low' must be a number >= 0, got nan"),
        ({"(": 0.1}, r"must be regular expressions, got '\('"),
        ("low", r'must be a dict .*, such as \{"encoder": 0.1\}, got .low.'),
        (["low"], r"must be a dict .*, got \['low'\]"),
    ):
        with pytest.raises(UserError, match=message):
            multiply_learning_rates(optimizer, [low], multipliers)
    with pytest.raises(UserError, match="multiplier of 'encoder' has no effect, as nothing of it"):
        multiply_learning_rates(optimizer, [low], {"encoder": 0.1}, parts={"encoder": []})


def test_optimizers_that_would_ignore_multipliers_are_rejected():
    low = variable("low_kernel")
    sgd = keras.optimizers.SGD(1.0)
    for optimizer, message in (
        (keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(sgd)), "wraps others"),
        (keras.optimizers.LossScaleOptimizer(sgd), "wraps others"),
        (
            keras.optimizers.AdamW(1.0, weight_decay=0.1),
            r"weight_decay = 0.1 of adam_w\w* does not",
        ),
    ):
        optimizer.build([low])
        with pytest.raises(UserError, match=message):
            multiply_learning_rates(optimizer, [low], {"low": 0.1})
