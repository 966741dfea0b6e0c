"""Trains a compiled model with the epoch loop on given batches."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from supcon_tf.optimizers import warmup_schedule
from supcon_tf.run_dir import RunDir
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.loop import fit


@dataclasses.dataclass(frozen=True)
class Steps:
    """A stand-in for `StepBatches`."""

    make: Callable
    num_examples: int
    one_pipeline: bool = True

    def __call__(self, start, stop):
        return self.make(start, stop)


@dataclasses.dataclass(frozen=True)
class Measures:
    """A stand-in for `EpochMeasures`: no measure, or the validation accuracy that `accuracy` returns."""

    accuracy: Callable | None = None

    @property
    def best_by(self):
        return None if self.accuracy is None else "validation_accuracy"

    def __call__(self, epoch):
        return {} if self.accuracy is None else {self.best_by: self.accuracy()}

    def advise(self, record):
        return None


def training_config(**options):
    """Settings of a stage that `compile_model` does not use."""
    defaults = {
        "stage": "pretrain",
        "optimizer": keras.optimizers.SGD,
        "schedule": warmup_schedule,
        "strategy": tf.distribute.get_strategy(),
    }
    return TrainingConfig(**{**defaults, **options})


def fit_steps(model, steps, folder, *, num_examples, accuracy=None, one_pipeline=True, **options):
    """`fit` on the batches of `steps(start, stop)`, with options of `TrainingConfig`."""
    fit(
        model,
        Steps(steps, num_examples, one_pipeline),
        config=training_config(**options),
        run_dir=RunDir(folder),
        measures=Measures(accuracy),
    )
