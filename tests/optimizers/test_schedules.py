import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.optimizers import WarmupSchedule, warmup_schedule


def schedule_loop(
    step,
    *,
    base_learning_rate,
    batch_size,
    steps_per_epoch,
    epochs,
    warmup_epochs=0,
    warmup_start_learning_rate=0.0,
    final_learning_rate=0.0,
    scale_by_batch=True,
    decay="cosine",
    decay_rate=0.1,
    epochs_per_decay=2.4,
    boundary_epochs=(),
):
    """The equations of the docstring in float64, for one step."""
    peak = base_learning_rate * batch_size / 256 if scale_by_batch else base_learning_rate
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return (
            warmup_start_learning_rate + (peak - warmup_start_learning_rate) * step / warmup_steps
        )
    step -= warmup_steps
    if decay == "cosine":
        t = min(1, step / int((epochs - warmup_epochs) * steps_per_epoch))
        low = final_learning_rate
        return low + (peak - low) * (1 + math.cos(math.pi * t)) / 2
    if decay == "exponential":
        return peak * decay_rate ** math.floor(step / (epochs_per_decay * steps_per_epoch))
    if decay == "piecewise":
        # tf.train.piecewise_constant keeps the old value where x <= boundary.
        return peak * decay_rate ** sum(
            step > int(boundary * steps_per_epoch) for boundary in boundary_epochs
        )
    return peak


def assert_follows_the_loop(steps, **options):
    schedule = warmup_schedule(**options)
    expected = np.array([schedule_loop(int(step), **options) for step in steps])
    np.testing.assert_allclose(schedule(steps), expected, rtol=2e-6, atol=1e-9 * expected.max())


DECAYS = [
    {"decay": "none"},
    {"decay": "cosine"},
    {"decay": "cosine", "final_learning_rate": 0.07},
    {"decay": "exponential", "decay_rate": 0.97, "epochs_per_decay": 0.5},
    {"decay": "exponential"},
    {"decay": "piecewise", "decay_rate": 0.2, "boundary_epochs": (6, 7.5, 9)},
]


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("steps_per_epoch", [10, 50_000 / 4096, 1437 / 96])
@pytest.mark.parametrize("warmup_epochs", [0, 2, 3.5])
def test_every_step_follows_the_equations(warmup_epochs, steps_per_epoch, decay):
    epochs = 15
    # The staircase stops when the training ends; the loop does not.
    assert_follows_the_loop(
        np.arange(int(epochs * steps_per_epoch)),
        base_learning_rate=0.4,
        batch_size=1024,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_start_learning_rate=0.01,
        **decay,
    )


def test_imagenet_warm_up_has_2502_steps_and_a_peak_scaled_by_the_batch():
    recipe = {
        "base_learning_rate": 0.4,
        "batch_size": 6144,
        "steps_per_epoch": 1_281_167 / 6144,
        "epochs": 350,
        "warmup_epochs": 12,
    }
    schedule = warmup_schedule(**recipe)
    assert schedule.warmup_steps == 2502
    assert float(schedule(2502)) == pytest.approx(0.4 * 24)
    assert float(schedule(2501)) == pytest.approx(0.4 * 24 * 2501 / 2502)
    last = int(350 * recipe["steps_per_epoch"])
    steps = np.r_[0, 1, 2500:2505, 10_000:last:9973, last - 50 : last]
    assert_follows_the_loop(steps, **recipe)


@pytest.mark.parametrize("decay", DECAYS)
def test_a_million_steps_lose_no_precision(decay):
    steps_per_epoch, epochs = 1_281_167 / 256, 400
    last = int(epochs * steps_per_epoch)
    assert last > 2e6
    edges = [int(epoch * steps_per_epoch) for epoch in (5, 6, 7.5, 9, 100.5, 300, 399.5)]
    steps = np.unique(np.concatenate([np.arange(edge - 3, edge + 4) for edge in edges]))
    assert_follows_the_loop(
        np.r_[steps, last - 5 : last],
        base_learning_rate=0.1,
        batch_size=256,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        warmup_epochs=5,
        **decay,
    )


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ({"decay": "none"}, 0.5),
        ({"decay": "cosine", "final_learning_rate": 0.07}, 0.07),
        # 8 epochs after the warm-up: drops after 3 and 6 of them; the drop after 9 is not reached.
        ({"decay": "exponential", "decay_rate": 0.5, "epochs_per_decay": 3}, 0.125),
        ({"decay": "piecewise", "decay_rate": 0.5, "boundary_epochs": (4,)}, 0.25),
    ],
)
def test_rate_is_constant_after_the_last_epoch(decay, expected):
    schedule = warmup_schedule(
        base_learning_rate=0.5,
        batch_size=256,
        steps_per_epoch=10,
        epochs=10,
        warmup_epochs=2,
        **decay,
    )
    for step in (100, 101, 10_000, 2**40):
        assert float(schedule(step)) == pytest.approx(expected)


def test_scale_by_batch_false_uses_absolute_rates():
    schedule = warmup_schedule(
        base_learning_rate=4.8,
        batch_size=2816,
        steps_per_epoch=10,
        epochs=100,
        warmup_epochs=10,
        warmup_start_learning_rate=0.6,
        final_learning_rate=0.048,
        scale_by_batch=False,
    )
    rates = [float(schedule(step)) for step in (0, 100, 1000)]
    assert rates == pytest.approx([0.6, 4.8, 0.048])


def test_exponential_drop_ignores_rounding_of_its_step():
    # 1.1 epochs of 100 steps are 110.00000000000001 steps in floating point.
    schedule = warmup_schedule(
        base_learning_rate=1.0,
        batch_size=256,
        steps_per_epoch=100,
        epochs=2,
        decay="exponential",
        epochs_per_decay=1.1,
    )
    assert [round(float(schedule(step)), 6) for step in (109, 110)] == [1.0, 0.1]


def test_whole_steps_ignore_rounding():
    # 0.29 * 100 and 0.57 * 100 are a little below 29 and 57.
    options = {"base_learning_rate": 1.0, "batch_size": 256, "steps_per_epoch": 100, "epochs": 2}
    rate = warmup_schedule(warmup_epochs=0.29, decay="none", **options)
    assert rate.warmup_steps == 29
    rate = warmup_schedule(decay="piecewise", boundary_epochs=(0.29, 0.57), **options)
    # As tf.train.piecewise_constant, the step at a boundary still has the old rate.
    np.testing.assert_allclose(rate(np.array([29, 30, 57, 58])), [1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_piecewise_schedule_equals_tf_piecewise_constant_after_the_warm_up():
    """The released code: boundaries int(e N / batch), counted from the end of the warm-up."""
    steps_per_epoch, boundary_epochs = 50_000 / 4096, (60, 75, 90)
    schedule = warmup_schedule(
        base_learning_rate=2.5,
        batch_size=256,
        steps_per_epoch=steps_per_epoch,
        epochs=110,
        warmup_epochs=10,
        decay="piecewise",
        decay_rate=0.2,
        boundary_epochs=boundary_epochs,
    )
    steps_after_warmup = np.arange(int(100 * steps_per_epoch))
    boundaries = [int(epoch * steps_per_epoch) for epoch in boundary_epochs]
    assert boundaries == [732, 915, 1098]
    rates = [2.5 * 0.2**drop for drop in range(4)]
    expected = [
        float(tf.compat.v1.train.piecewise_constant(int(step), boundaries, rates)())
        for step in (0, 731, 732, 733, 914, 915, 916, 1098, 1099)
    ]
    found = schedule(int(10 * steps_per_epoch) + steps_after_warmup).numpy()
    np.testing.assert_allclose(
        found[[0, 731, 732, 733, 914, 915, 916, 1098, 1099]], expected, rtol=1e-6
    )
    assert expected[2] == 2.5
    assert expected[3] == pytest.approx(0.5)


def test_warm_up_over_all_epochs_ends_below_the_peak():
    schedule = warmup_schedule(
        base_learning_rate=1.0, batch_size=256, steps_per_epoch=4, epochs=1, warmup_epochs=1
    )
    assert [float(schedule(step)) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 0.0]


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_compiled_schedule_takes_integer_tensors_and_gives_float32(dtype, decay):
    schedule = warmup_schedule(
        base_learning_rate=0.5,
        batch_size=256,
        steps_per_epoch=3.7,
        epochs=10,
        warmup_epochs=2,
        **decay,
    )
    compiled = tf.function(schedule, jit_compile=True)
    for step in (0, 5, 7, 20, 36):
        rate = compiled(tf.constant(step, dtype))
        assert rate.dtype == tf.float32
        np.testing.assert_allclose(rate, schedule(step), rtol=1e-6)


def test_schedule_survives_serialization_in_an_optimizer():
    schedule = WarmupSchedule(
        0.7,
        warmup_steps=3,
        warmup_start_learning_rate=0.1,
        drop_steps=(5, 9),
        drop_factor=0.3,
    )
    optimizer = keras.optimizers.SGD(schedule)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))._learning_rate
    assert isinstance(copy, WarmupSchedule)
    assert copy.get_config() == schedule.get_config()
    assert [float(copy(step)) for step in range(15)] == [
        float(schedule(step)) for step in range(15)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": "linear"}, "decay must be one of .*'cosine'.*, got 'linear'"),
        ({"batch_size": 0}, "batch_size must be a number > 0, got 0"),
        ({"steps_per_epoch": -1}, "steps_per_epoch must be a number > 0, got -1"),
        ({"epochs": 0}, "epochs must be a number > 0, got 0"),
        ({"base_learning_rate": -0.1}, "base_learning_rate must be a number >= 0, got -0.1"),
        ({"base_learning_rate": math.nan}, "base_learning_rate must be a number >= 0, got nan"),
        ({"base_learning_rate": "0.1"}, "base_learning_rate must be a number >= 0, got '0.1'"),
        ({"final_learning_rate": math.inf}, "final_learning_rate must be a number >= 0, got inf"),
        ({"warmup_start_learning_rate": -1}, "warmup_start_learning_rate must be .* got -1"),
        ({"warmup_epochs": 11}, r"warmup_epochs must be in \[0, epochs=10\], got 11"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a number >= 0, got -1"),
        ({"decay_rate": 0}, "decay_rate must be a number > 0, got 0"),
        ({"decay": "exponential", "epochs_per_decay": 0}, "epochs_per_decay must be .* > 0, got 0"),
        ({"decay": "piecewise"}, "decay='piecewise' needs boundary_epochs"),
        ({"boundary_epochs": (1, 2)}, r"has no effect with decay = 'cosine', got \(1, 2\)"),
        ({"scale_by_batch": "False"}, "scale_by_batch must be True or False, got 'False'"),
        ({"decay": "piecewise", "boundary_epochs": 6}, "a sequence of epochs, got 6"),
        ({"decay": "piecewise", "boundary_epochs": (6, 5)}, r"increasing order, got \(6, 5\)"),
        ({"decay": "piecewise", "boundary_epochs": (-1,)}, "must be a number >= 0, got -1"),
    ],
)
def test_options_out_of_range_are_rejected(options, message):
    right = {"base_learning_rate": 0.1, "batch_size": 8, "steps_per_epoch": 5, "epochs": 10}
    with pytest.raises(UserError, match=message):
        warmup_schedule(**(right | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak_learning_rate": -1.0}, "peak_learning_rate must be a number >= 0, got -1.0"),
        ({"warmup_steps": 2.5}, "warmup_steps must be an integer >= 0, got 2.5"),
        ({"cosine_steps": -1}, "cosine_steps must be an integer >= 0, got -1"),
        ({"drop_steps": (9, 5)}, r"drop_steps must be in increasing order, got \[9, 5\]"),
        ({"drop_factor": math.nan}, "drop_factor must be a number > 0, got nan"),
    ],
)
def test_step_options_out_of_range_are_rejected(options, message):
    with pytest.raises(UserError, match=message):
        WarmupSchedule(**({"peak_learning_rate": 0.1} | options))
