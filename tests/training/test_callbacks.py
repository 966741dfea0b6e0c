"""Callbacks of the epoch loop: what a long run leaves in memory."""

import time

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.training import callbacks
from tests.fitting import training_config


class Recorded:
    """A variable that keeps what is assigned."""

    def __init__(self):
        self.values = [np.int64(0)]

    def assign(self, value):
        self.values.append(value)

    def __int__(self):
        return int(self.values[-1])


def test_steps_and_scalars_are_no_python_numbers(monkeypatch):
    # TensorFlow keeps every Python number that it has converted to a tensor, and its tensor.
    step, scalars = Recorded(), []
    count = callbacks.CountSteps(step)
    count.set_params({"steps": 3})
    count.on_epoch_begin(0)
    for batch in (0, 1, 3):
        count.on_train_batch_end(batch)
    assert [int(value) for value in step.values] == [0, 1, 2, 3]
    monkeypatch.setattr(tf.summary, "scalar", lambda name, *a, step: scalars.extend([*a, step]))
    record = {"epoch": 1, "step": 3, "loss": 0.5, "images_per_second": 8.0}
    callbacks._report(record, "pretrain epoch 1/1", left="")
    assert [float(value) for value in scalars] == [0.5, 3, 8, 3]
    for value in (*step.values[1:], *scalars):
        assert not isinstance(value, int | float)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(120, ", about 8 min left"), (3600, ", about 4.0 h left"), (6, "")],
)
def test_time_left_is_that_of_the_epochs_to_come(seconds, says):
    config = training_config(epochs=7, batch_size=4)
    # This run has resumed at its third epoch.
    end = callbacks.EndEpochs(
        None, epochs={9: 3, 12: 4}, config=config, measures=None, callbacks=None
    )
    end._fit_began = time.perf_counter() - seconds
    assert end._time_left({"epoch": 3}) == says
    end._next_stages = ("linear", "robustness")
    assert end._time_left({"epoch": 3}) == (says and f"{says}, then linear, then robustness")
