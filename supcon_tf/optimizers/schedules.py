"""Learning-rate schedules: a linear warm-up, then a decay that starts at its end."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import keras
import numpy as np
from keras import ops

from supcon_tf.errors import UserError, check_flag, check_integer, check_number

Decay = Literal["cosine", "exponential", "piecewise", "none"]


def warmup_schedule(
    *,
    base_learning_rate: float,
    batch_size: int,
    steps_per_epoch: float,
    epochs: float,
    warmup_epochs: float = 0,
    warmup_start_learning_rate: float = 0.0,
    final_learning_rate: float = 0.0,
    scale_by_batch: bool = True,
    decay: Decay = "cosine",
    decay_rate: float = 0.1,
    epochs_per_decay: float = 2.4,
    boundary_epochs: Sequence[float] = (),
) -> "WarmupSchedule":
    """Learning rate by epochs: linear warm-up to a peak, then a decay over the remaining epochs.

    The schedule of the released SupCon and SimCLR code. With s the steps since the end of the
    warm-up, e = s / steps_per_epoch, E = epochs - warmup_epochs and
    peak = base_learning_rate batch_size / 256:

        cosine       final + (peak - final) (1 + cos(pi e / E)) / 2
        exponential  peak decay_rate^floor(e / epochs_per_decay)
        piecewise    peak decay_rate^(number of boundaries b with int(b steps_per_epoch) < s)
        none         peak

    As with `tf.train.piecewise_constant`, the step at a boundary still has the old rate. After the
    last epoch the rate stays at its last value (the released code sets it to 0).

    Args:
      base_learning_rate: peak learning rate for a batch of 256.
      batch_size: global batch size, in samples.
      steps_per_epoch: number of samples / batch size; may be a fraction.
      epochs: length of the training, including the warm-up.
      warmup_epochs: length of the warm-up.
      warmup_start_learning_rate: rate at step 0; not scaled by the batch size.
      final_learning_rate: rate at the end of "cosine"; not scaled by the batch size.
      scale_by_batch: False makes `base_learning_rate` the peak.
      decay: "cosine", "exponential", "piecewise" or "none".
      decay_rate: factor of each drop of "exponential" and "piecewise".
      epochs_per_decay: epochs between the drops of "exponential".
      boundary_epochs: epochs of the drops of "piecewise", counted from the end of the warm-up, in
        increasing order.

    Returns:
      A `WarmupSchedule`: integer steps of any shape -> float32 learning rates of that shape.

    Raises:
      UserError: for an unknown decay, a number out of range, a warm-up longer than the training, or
        boundaries that are missing or not in increasing order.

    Example:
      >>> from supcon_tf.optimizers import warmup_schedule
      >>> rate = warmup_schedule(base_learning_rate=0.5, batch_size=512, steps_per_epoch=10,
      ...                        epochs=100, warmup_epochs=10)
      >>> [float(rate(step)) for step in (0, 50, 100, 1000)]
      [0.0, 0.5, 1.0, 0.0]
    """
    if decay not in get_args(Decay):
        raise UserError(f"decay must be one of {get_args(Decay)}, got {decay!r}")
    for name, rate in (
        ("base_learning_rate", base_learning_rate),
        ("warmup_start_learning_rate", warmup_start_learning_rate),
        ("final_learning_rate", final_learning_rate),
    ):
        check_number(name, rate, at_least=0)
    for name, positive in (
        ("batch_size", batch_size),
        ("steps_per_epoch", steps_per_epoch),
        ("epochs", epochs),
        ("decay_rate", decay_rate),
        ("epochs_per_decay", epochs_per_decay),
    ):
        check_number(name, positive, above=0)
    check_number("warmup_epochs", warmup_epochs, at_least=0)
    check_flag("scale_by_batch", scale_by_batch)
    if warmup_epochs > epochs:
        raise UserError(f"warmup_epochs must be in [0, epochs={epochs}], got {warmup_epochs}")
    decay_epochs = epochs - warmup_epochs

    if boundary_epochs and decay != "piecewise":
        raise UserError(
            f"boundary_epochs has no effect with decay = {decay!r}, got {boundary_epochs!r}: set "
            "decay = 'piecewise'"
        )
    drop_steps: list[int] = []
    if decay == "exponential":
        steps_per_decay = epochs_per_decay * steps_per_epoch
        # As in `_whole`, for a product of 110.00000000000001.
        drop_steps = [
            math.ceil(drop * steps_per_decay - 1e-6)
            for drop in range(1, int(decay_epochs / epochs_per_decay) + 1)
        ]
    elif decay == "piecewise":
        _check_boundaries(boundary_epochs)
        drop_steps = [_whole(boundary * steps_per_epoch) + 1 for boundary in boundary_epochs]
    return WarmupSchedule(
        base_learning_rate * batch_size / 256 if scale_by_batch else base_learning_rate,
        warmup_steps=_whole(warmup_epochs * steps_per_epoch),
        warmup_start_learning_rate=warmup_start_learning_rate,
        cosine_steps=_whole(decay_epochs * steps_per_epoch) if decay == "cosine" else None,
        final_learning_rate=final_learning_rate,
        drop_steps=drop_steps,
        drop_factor=decay_rate,
    )


def _whole(steps: float) -> int:
    """Whole steps; a millionth is added, so that a product of 28.999999999999996 is 29 steps."""
    return int(steps + 1e-6)


def _check_boundaries(boundary_epochs: Sequence[float]) -> None:
    if isinstance(boundary_epochs, str) or not isinstance(boundary_epochs, Sequence):
        raise UserError(f"boundary_epochs must be a sequence of epochs, got {boundary_epochs!r}")
    if not boundary_epochs:
        raise UserError("decay='piecewise' needs boundary_epochs, got none")
    for boundary in boundary_epochs:
        check_number("a boundary of boundary_epochs", boundary, at_least=0)
    if any(late <= early for early, late in itertools.pairwise(boundary_epochs)):
        raise UserError(f"boundary_epochs must be in increasing order, got {boundary_epochs!r}")


@keras.saving.register_keras_serializable(package="supcon_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by steps: linear warm-up to a peak, then a half cosine or drops.

    `warmup_schedule` creates one from epochs. Maps integer steps of any shape to float32 learning
    rates of that shape.

    Args:
      peak_learning_rate: rate at the end of the warm-up.
      warmup_steps: length of the warm-up.
      warmup_start_learning_rate: rate at step 0.
      cosine_steps: steps from the peak to `final_learning_rate`; None for drops.
      final_learning_rate: rate at the end of the cosine and after it.
      drop_steps: steps since the end of the warm-up, in increasing order; each is the first with a
        lower rate.
      drop_factor: factor of the rate at each drop.

    Raises:
      UserError: for a number out of range, or `drop_steps` that are not in increasing order.

    Example:
      >>> from supcon_tf.optimizers import WarmupSchedule
      >>> rate = WarmupSchedule(1.0, warmup_steps=4, drop_steps=(6, 8), drop_factor=0.5)
      >>> [float(rate(step)) for step in (0, 1, 4, 9, 10, 12)]
      [0.0, 0.25, 1.0, 1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        peak_learning_rate: float,
        *,
        warmup_steps: int = 0,
        warmup_start_learning_rate: float = 0.0,
        cosine_steps: int | None = None,
        final_learning_rate: float = 0.0,
        drop_steps: Sequence[int] = (),
        drop_factor: float = 0.1,
    ):
        for name, rate in (
            ("peak_learning_rate", peak_learning_rate),
            ("warmup_start_learning_rate", warmup_start_learning_rate),
            ("final_learning_rate", final_learning_rate),
        ):
            check_number(name, rate, at_least=0)
        check_number("drop_factor", drop_factor, above=0)
        if cosine_steps is not None:
            check_integer("cosine_steps", cosine_steps, at_least=0)
        drop_steps = [check_integer("a drop step", step, at_least=0) for step in drop_steps]
        if drop_steps != sorted(drop_steps):
            raise UserError(f"drop_steps must be in increasing order, got {drop_steps}")
        self.peak_learning_rate = peak_learning_rate
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, at_least=0)
        self.warmup_start_learning_rate = warmup_start_learning_rate
        self.cosine_steps = cosine_steps
        self.final_learning_rate = final_learning_rate
        self.drop_steps = tuple(drop_steps)
        self.drop_factor = drop_factor

    def __call__(self, step):
        step = ops.cast(step, "int64")
        start, peak = self.warmup_start_learning_rate, self.peak_learning_rate
        warmup = start + (peak - start) * _fraction(step, self.warmup_steps)
        # Subtracts steps as integers: float32 has only 24 bits.
        step = step - self.warmup_steps
        decayed = self._dropped(step) if self.cosine_steps is None else self._cosine(step)
        return ops.where(step < 0, warmup, decayed)

    def _cosine(self, step):
        # (1 + cos(pi t)) / 2 = sin(pi (1 - t) / 2)^2, which is precise near the end.
        remaining = ops.clip(self.cosine_steps - step, 0, self.cosine_steps)
        share = ops.square(ops.sin(math.pi / 2 * _fraction(remaining, self.cosine_steps)))
        final = self.final_learning_rate
        return final + (self.peak_learning_rate - final) * share

    def _dropped(self, step):
        is_past = ops.expand_dims(step, -1) >= np.array(self.drop_steps, "int64")  # [..., drops]
        drops = ops.sum(ops.cast(is_past, "int32"), axis=-1)
        rates = self.peak_learning_rate * self.drop_factor ** np.arange(len(self.drop_steps) + 1.0)
        return ops.take(ops.cast(rates, "float32"), drops)

    def get_config(self):
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "warmup_steps": self.warmup_steps,
            "warmup_start_learning_rate": self.warmup_start_learning_rate,
            "cosine_steps": self.cosine_steps,
            "final_learning_rate": self.final_learning_rate,
            "drop_steps": self.drop_steps,
            "drop_factor": self.drop_factor,
        }


def _fraction(step, steps: int):
    return ops.cast(step, "float32") / max(steps, 1)
