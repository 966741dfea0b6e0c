"""What happens between training steps: the progress bar, the watch on the loss, the saving."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm


class Progress(keras.callbacks.Callback):
    """A bar with loss, accuracy and images/s, and the clock of the epoch.

    Args:
      description: what stands before the bar.
      batch_size: images per step.

    The attributes `seconds` and `images_per_second` tell of the last stretch of steps; the first
    step, which traces the graph, does not enter the second one.
    """

    def __init__(self, *, description: str, batch_size: int):
        super().__init__()
        self.description = description
        self.batch_size = batch_size
        self.seconds = 0.0
        self.images_per_second = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()
        self._after_first_steps = self._start
        self._first_steps = 0
        self._bar = tqdm(
            total=self.params["steps"],
            desc=self.description,
            unit_scale=self.batch_size,
            unit="image",
            leave=False,
            disable=None,
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With steps_per_execution, several since the last time, and Keras counts beyond the end.
        done = min(batch + 1, self.params["steps"])
        if not self._first_steps:
            self._after_first_steps = time.perf_counter()
            self._first_steps = done
        shown = {name: f"{value:.4f}" for name, value in summary(logs or {}).items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._bar.close()
        now = time.perf_counter()
        self.seconds = now - self._start
        steps, since = self.params["steps"] - self._first_steps, self._after_first_steps
        if not steps:
            steps, since = self._first_steps, self._start
        self.images_per_second = steps * self.batch_size / (now - since)


class CountSteps(keras.callbacks.Callback):
    """Counts the batches that were trained on.

    Args:
      step: int64 variable.
    """

    def __init__(self, step: tf.Variable):
        super().__init__()
        self.step = step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = int(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Several steps may have passed in one execution, whose last ones may not have been there.
        self.step.assign(self._before + min(batch + 1, self.params["steps"]))


def summary(logs: dict[str, Any]) -> dict[str, float]:
    """The loss being studied (without weight decay and probe), and the classifier's accuracy."""
    # Of a model with several outputs each loss has its own log; SwAV's can have two beside a probe.
    studied = [logs[name] for name in ("prototypes_loss", "projection_loss") if name in logs]
    chosen = {
        "loss": sum(studied) if studied else logs.get("loss_without_decay", logs.get("loss")),
        "accuracy": logs.get("logits_accuracy", logs.get("accuracy")),
    }
    # There is no accuracy where no image of an epoch has a label.
    return {
        name: float(value)
        for name, value in chosen.items()
        if value is not None and not (name == "accuracy" and math.isnan(value))
    }


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the run at the first step whose loss is NaN or infinite.

    Args:
      step: int64 variable, as `CountSteps` leaves it.
      stage: the stage's name, for the advice.

    Raises:
      ValueError: with the step, and what to try.
    """

    def __init__(self, step: tf.Variable, *, stage: str):
        super().__init__()
        self.step = step
        self.stage = stage

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss is {loss} at step {int(self.step)} of {self.stage}: try a lower "
                "base_learning_rate, more warmup_epochs or a higher temperature, in a new "
                "--workdir"
            )


class SaveEvery(keras.callbacks.Callback):
    """Calls `save` whenever so many minutes have passed since the last time.

    Args:
      minutes: between two calls.
      save: takes nothing.
    """

    def __init__(self, *, minutes: float, save: Callable[[], Any]):
        super().__init__()
        self.minutes = minutes
        self.save = save
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._last > 60 * self.minutes:
            self.save()
            self._last = time.monotonic()
