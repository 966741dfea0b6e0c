"""Keras callbacks of the epoch loop."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.errors import Stopped, UserError
from supcon_tf.models.distributed import with_inner
from supcon_tf.training.checkpoint import Progress
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.results import EpochMeasures
from supcon_tf.training.signals import Signals


class StageCallbacks(keras.callbacks.Callback):
    """Calls the callbacks of a stage's settings, once per epoch of the stage.

    One call of Keras' `fit` covers several epochs of a stage, or less than one if the stage
    resumes. Here `on_train_begin` and `on_train_end` are called once in a process, `on_epoch_begin`
    and `on_epoch_end` for each epoch of the stage, and the batches of an epoch count from 0, or
    from where it resumes.

    Args:
      progress: progress of the stage.
      config: its `callbacks` are Keras callbacks, or functions of the number of steps that return
        one.
      steps: number of steps of the stage.

    Raises:
      UserError: something else among the callbacks.
    """

    def __init__(self, progress: Progress, *, config: TrainingConfig, steps: int):
        super().__init__()
        made = [
            each if isinstance(each, keras.callbacks.Callback) else each(steps=steps)
            for each in config.callbacks
        ]
        for each in made:
            if not isinstance(each, keras.callbacks.Callback):
                raise UserError(
                    f"{config.stage}.run.callbacks must be Keras callbacks, or functions that "
                    f"return one, got {each!r}"
                )
        self._callbacks, self._progress, self._steps = made, progress, steps
        self._epochs = config.epochs
        self._has_begun = False
        self._first_batch = self._next_batch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._next_batch = 0
        if self._has_begun:
            return
        self._has_begun = True
        for callback in self._callbacks:
            # The epochs of a stage need not have the same number of steps.
            callback.set_params({"epochs": self._epochs, "steps": None, "verbose": 0})
            callback.set_model(self.model)
        for callback in self._callbacks:
            callback.on_train_begin(logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for callback in self._callbacks:
            callback.on_train_batch_begin(batch - self._first_batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._next_batch = batch + 1
        for callback in self._callbacks:
            callback.on_train_batch_end(batch - self._first_batch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        if int(self._progress.step) == self._steps:
            for callback in self._callbacks:
                callback.on_train_end(logs)

    def begin_epoch(self, epoch: int) -> None:
        """Begins an epoch of the stage; the first is 1, and 0 in Keras."""
        self._first_batch = self._next_batch
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch - 1, {})

    def end_epoch(self, epoch: int, measures: Mapping[str, float]) -> None:
        """Ends an epoch of the stage with its measures."""
        for callback in self._callbacks:
            callback.on_epoch_end(epoch - 1, dict(measures))


class EndEpochs(keras.callbacks.Callback):
    """Ends several epochs within one call of `fit`: each has a progress bar, measures and a record.

    Keras' own epochs all have the same number of steps; here the numbers of steps may differ.

    Args:
      progress: progress of the stage; `CountSteps` counts its steps.
      epochs: step after which an epoch ends -> the epoch's number.
      config: settings of the stage.
      measures: computed at the end of an epoch; None for a worker that records nothing.
      callbacks: called at the start and end of each epoch.
      next_stages: the stages of the run after this one.

    The attribute `last_end` is the step after which the last epoch ended.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        epochs: Mapping[int, int],
        config: TrainingConfig,
        measures: EpochMeasures | None,
        callbacks: StageCallbacks,
        next_stages: Sequence[str] = (),
    ):
        super().__init__()
        self.last_end: int | None = None
        self._trained: list[np.ndarray] | None = None
        self._traced_steps = 0
        self._bar = tqdm(disable=True)
        self._progress, self._epochs, self._config = progress, epochs, config
        self._fit_began, self._first_epoch = time.perf_counter(), min(epochs.values())
        self._measures, self._next_stages = measures, next_stages
        self._callbacks = callbacks

    def on_train_begin(self, logs: Any = None) -> None:
        self._begin_epoch(seconds_before=self._progress.seconds)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._progress.restore_metrics()

    def save(self) -> None:
        """Saves within an epoch."""
        self._progress.save(seconds=time.perf_counter() - self._start)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = int(self._progress.step)
        done = step - self._first_step
        if not self._traced_steps:
            self._traced_at = time.perf_counter()
            self._traced_steps = done
        shown = {name: f"{value:.4f}" for name, value in summary(logs or {}).items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        if step in self._epochs:
            self._end_epoch(step, done, summary(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()
        self._restore_trained()  # `fit` has just made the averages the weights.

    def _begin_epoch(self, seconds_before: float = 0.0) -> None:
        self._begun = time.perf_counter()
        self._start = self._begun - seconds_before
        self._first_step = int(self._progress.step)
        self._traced_steps = 0
        end = min(end for end in self._epochs if end > self._first_step)
        self._callbacks.begin_epoch(self._epochs[end])
        self._bar = tqdm(
            total=end - self._first_step,
            desc=self._title(end),
            unit_scale=self._config.batch_size,
            unit="image",
            leave=False,
            disable=None,
        )

    def _end_epoch(self, step: int, done: int, logs: dict[str, float]) -> None:
        self._bar.close()
        now = time.perf_counter()
        # The first steps of a fit trace the graph: they are left out of the speed.
        steps, since = done - self._traced_steps, self._traced_at
        if not steps:
            steps, since = done, self._begun
        self._average_weights()
        measures = {} if self._measures is None else self._measures(self._epochs[step])
        self._restore_trained()
        shown = {
            **logs,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": now - self._start,
            "images_per_second": steps * self._config.batch_size / (now - since),
            **measures,
        }
        # Before the checkpoint, which includes what they change in the model.
        self._callbacks.end_epoch(self._epochs[step], shown)
        if self._measures is not None:
            record = {"epoch": self._epochs[step], "step": step, **shown}
            self._progress.end_epoch(record, best_by=self._measures.best_by)
            _report(record, self._title(step), left=self._time_left(record))
            if (advice := self._measures.advise(record)) is not None:
                print(advice, flush=True)
        self.last_end = step
        if step < max(self._epochs):
            self.model.reset_metrics()
            self._begin_epoch()

    def _average_weights(self) -> None:
        """Makes the moving averages the weights, for optimizers with use_ema."""
        optimizer, variables = self.model.optimizer, self.model.trainable_variables
        if any(each.use_ema for each in with_inner(optimizer)):
            self._trained = [variable.numpy() for variable in variables]
            optimizer.finalize_variable_values(variables)

    def _restore_trained(self) -> None:
        """Training goes on from the weights that the steps gave, not from their averages."""
        if self._trained is not None:
            for variable, value in zip(self.model.trainable_variables, self._trained, strict=True):
                variable.assign(value)

    def _time_left(self, record: Mapping[str, float]) -> str:
        """The time until the stage ends, by its epochs so far, measures included."""
        epochs = self._config.epochs - int(record["epoch"])
        done = record["epoch"] - self._first_epoch + 1
        minutes = (time.perf_counter() - self._fit_began) / done * epochs / 60
        if minutes < 0.5:
            return ""
        shown = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
        return ", then ".join([f", about {shown} left", *self._next_stages])

    def _title(self, end: int) -> str:
        return f"{self._config.stage} epoch {self._epochs[end]}/{self._config.epochs}"


def _report(record: dict[str, float], title: str, *, left: str) -> None:
    """Prints one line and writes TensorBoard scalars."""
    for name, value in record.items():
        if name not in ("epoch", "step"):
            # TensorFlow keeps every Python number that it has converted to a tensor.
            step = np.asarray(record["step"], np.int64)
            tf.summary.scalar(name, np.asarray(value, np.float32), step=step)
    shown = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if name in ("loss", "accuracy") or name.startswith("validation_")
    ]
    speed = f"{record['images_per_second']:,.0f} images/s"
    print(f"{title}: {', '.join(shown)}, {speed}{left}", flush=True)


class CountSteps(keras.callbacks.Callback):
    """Counts training steps in an int64 variable."""

    def __init__(self, step: tf.Variable):
        super().__init__()
        self.step = step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before = int(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # One execution may run several steps, and the last one fewer.
        step = self._before + min(batch + 1, self.params["steps"])
        self.step.assign(np.asarray(step, np.int64))  # A Python number would stay in memory.


def summary(logs: dict[str, Any]) -> dict[str, float]:
    """The loss without weight decay and the probe's loss, and the classifier's accuracy."""
    # A model with several outputs logs each loss; SwAV may have two besides the probe's.
    studied = [logs[name] for name in ("prototypes_loss", "projection_loss") if name in logs]
    chosen = {
        "loss": sum(studied) if studied else logs.get("loss_without_decay", logs.get("loss")),
        "accuracy": logs.get("logits_accuracy", logs.get("accuracy")),
    }
    # NaN: no image of the epoch has a label.
    return {
        name: float(value)
        for name, value in chosen.items()
        if value is not None and not (name == "accuracy" and math.isnan(value))
    }


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the run at the first step whose loss is NaN or infinite.

    Args:
      step: int64 variable, updated by `CountSteps`.
      config: settings of the stage, for the advice.

    Raises:
      UserError: with the loss, the step, its learning rate and advice.
    """

    def __init__(self, step: tf.Variable, *, config: TrainingConfig):
        super().__init__()
        self.step = step
        self.config = config

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = logs or {}
        if math.isfinite(logs["loss"]):
            return
        losses = [name for name, value in logs.items() if name.endswith("_loss")]
        wrong = [name for name in losses if not math.isfinite(logs[name])]
        raise UserError(
            f"the {wrong[0].replace('_', ' ') if wrong else 'loss'} is {logs['loss']} at step "
            f"{int(self.step)} of {self.config.stage} (learning rate "
            f"{float(self.model.optimizer.learning_rate):.4g}, seed {self.config.seed}): try a "
            "lower base_learning_rate, more warmup_epochs or a higher temperature in a new "
            "--workdir; the same command with --debug finds the operation"
        )


class SaveAndStop(keras.callbacks.Callback):
    """Saves when it is due, and stops the run after a signal.

    Args:
      progress: its step is saved.
      save: saves within an epoch.
      config: minutes and steps between two checkpoints.
      signals: the signals that have come.
      is_chief: False for a worker that neither saves nor stops by itself.

    Raises:
      Stopped: after a signal, when the step is saved.
    """

    def __init__(
        self,
        progress: Progress,
        save: Callable[[], None],
        *,
        config: TrainingConfig,
        signals: Signals,
        is_chief: bool,
    ):
        super().__init__()
        self._progress, self._save, self._config = progress, save, config
        self._signals, self._is_chief = signals, is_chief
        self._saved, self._saved_at = progress.saved_step, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._is_chief:
            return
        step, config, signals = int(self._progress.step), self._config, self._signals
        if self._saved != self._progress.saved_step:  # An epoch has ended.
            self._saved, self._saved_at = self._progress.saved_step, time.monotonic()
        minutes = (time.monotonic() - self._saved_at) / 60
        steps = math.inf if config.checkpoint_steps is None else config.checkpoint_steps
        is_due = minutes > config.checkpoint_minutes or step - self._saved >= steps
        if is_due or signals.save or signals.stop:
            self._save()
        if signals.save:
            signals.save = False
            print(f"{config.stage}: saved at step {step}", flush=True)
        if signals.stop:
            raise Stopped(
                f"stopped by {signals.stop.name} after step {step} of {config.stage}, which is "
                "saved: the same command continues",
                signals.stop,
            )
