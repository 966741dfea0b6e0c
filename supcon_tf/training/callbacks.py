"""What happens between training steps: the progress bar, the watch on the loss, the saving."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.errors import UserError


class Epochs(keras.callbacks.Callback):
    """Several epochs within one call of `fit`, each with its bar of loss, accuracy and images/s.

    To call `fit` for every epoch would make the input pipeline anew each time, which for small sets
    takes longer than to train on them. Keras' own epochs are all of the same number of steps.

    Args:
      step: int64 variable, as `CountSteps` leaves it.
      ends: steps after which an epoch ends -> what stands before its bar.
      batch_size: images per step.
      on_end: takes the step after which an epoch ended, its summary, the seconds that it took and
        the images/s, without the first steps: those of a `fit` trace the graph.
    """

    def __init__(
        self,
        step: tf.Variable,
        *,
        ends: Mapping[int, str],
        batch_size: int,
        on_end: Callable[[int, dict[str, float], float, float], None],
    ):
        super().__init__()
        self.step = step
        self.ends = ends
        self.batch_size = batch_size
        self.on_end = on_end

    def on_train_begin(self, logs: Any = None) -> None:
        self._begin()

    def _begin(self) -> None:
        self._start = time.perf_counter()
        self._first = int(self.step)
        self._first_steps = 0
        end = min(end for end in self.ends if end > self._first)
        self._bar = tqdm(
            total=end - self._first,
            desc=self.ends[end],
            unit_scale=self.batch_size,
            unit="image",
            leave=False,
            disable=None,
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = int(self.step) - self._first
        if not self._first_steps:
            self._after_first_steps = time.perf_counter()
            self._first_steps = done
        found = summary(logs or {})
        shown = {name: f"{value:.4f}" for name, value in found.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        if int(self.step) not in self.ends:
            return
        self._bar.close()
        now = time.perf_counter()
        steps, since = done - self._first_steps, self._after_first_steps
        if not steps:
            steps, since = done, self._start
        # As `fit` does at its end: with use_ema the averages become the weights.
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.on_end(
            int(self.step), found, now - self._start, steps * self.batch_size / (now - since)
        )
        if int(self.step) < max(self.ends):
            self.model.reset_metrics()
            self._begin()

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()


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
      UserError: with the step, and what to try.
    """

    def __init__(self, step: tf.Variable, *, stage: str):
        super().__init__()
        self.step = step
        self.stage = stage

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {int(self.step)} of {self.stage}: try a lower "
                "base_learning_rate, more warmup_epochs or a higher temperature, in a new "
                "--workdir"
            )


class SaveEvery(keras.callbacks.Callback):
    """Calls `save` whenever so many minutes have passed since the last time, or since `restart`.

    Args:
      minutes: between two calls.
      save: takes nothing.
    """

    def __init__(self, *, minutes: float, save: Callable[[], Any]):
        super().__init__()
        self.minutes = minutes
        self.save = save
        self.restart()

    def restart(self) -> None:
        """Begins to count from here."""
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._last > 60 * self.minutes:
            self.save()
            self.restart()
