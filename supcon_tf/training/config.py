"""The settings that every training stage has."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import keras
import tensorflow as tf

from supcon_tf.errors import UserError, check_choice, check_integer, check_number

# Smallest values of the integer settings, which are also checked before the first stage runs.
MINIMUM = {"epochs": 1, "batch_size": 1, "seed": 0, "checkpoints_to_keep": 1}
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
StageCallback: TypeAlias = keras.callbacks.Callback | Callable[..., keras.callbacks.Callback]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a stage trains; built once by the stage from its gin parameters.

    Args:
      stage: the stage's name, such as "pretrain".
      optimizer: learning_rate -> the optimizer.
      schedule: batch_size, steps_per_epoch, epochs -> the learning rate, as
        `optimizers.warmup_schedule`.
      epochs: passes over the training images.
      batch_size: images per step, over all replicas.
      strategy: where to train.
      max_images: limits the epochs to this many images in all, but not to less than one epoch; None
        for no limit.
      weight_decay: L2 weight decay of the parts that the losses train, not of batch normalisation.
      seed: seed of the initial weights, the order of images and the views.
      precision: dtype policy of the layers.
      jit_compile: compile the step with XLA.
      clip_norm: largest global norm of the whole batch's gradient; None for no limit.
      gradient_cache_chunk: samples that go through the encoder at a time; None for all at once.
      learning_rate_multipliers: part or regular expression of variable paths -> factor.
      freeze_through, freeze_batch_norm: layers of the encoder to freeze, as in `models.freeze`.
      checkpoints_to_keep: number of recent checkpoints to keep.
      checkpoint_minutes, checkpoint_steps: also saves within an epoch after this time or number of
        steps since the last checkpoint; None for no limit of steps.
      snapshot_every: epochs between two snapshots of the model; None for no snapshots.
      callbacks: Keras callbacks, or functions: steps of the stage -> a Keras callback.

    Raises:
      UserError: a value out of range, or one that the strategy does not support.
    """

    stage: str
    optimizer: Callable[..., keras.optimizers.Optimizer]
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule]
    epochs: int
    batch_size: int
    strategy: tf.distribute.Strategy
    max_images: int | None = None
    weight_decay: float = 0.0
    seed: int = 0
    precision: Precision = "float32"
    jit_compile: bool = False
    clip_norm: float | None = None
    gradient_cache_chunk: int | None = None
    learning_rate_multipliers: Mapping[str, float] | None = None
    freeze_through: str | None = None
    freeze_batch_norm: bool = False
    checkpoints_to_keep: int = 3
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int | None = None
    snapshot_every: int | None = None
    callbacks: Sequence[StageCallback] = ()

    def __post_init__(self) -> None:
        name, replicas = f"{self.stage}.run", self.replicas
        for field, minimum in MINIMUM.items():
            check_integer(f"{name}.{field}", getattr(self, field), at_least=minimum)
        for field in ("max_images", "snapshot_every", "checkpoint_steps"):
            if getattr(self, field) is not None:
                check_integer(f"{name}.{field}", getattr(self, field), at_least=1)
        check_number(f"{name}.checkpoint_minutes", self.checkpoint_minutes, at_least=0)
        if self.batch_size % replicas:
            raise UserError(
                f"{name}.batch_size must be a multiple of the {replicas} replicas, got "
                f"{self.batch_size}"
            )
        if self.seed >= 2**32:
            raise UserError(f"{name}.seed must be below 2^32, got {self.seed}")
        check_choice(f"{name}.precision", self.precision, get_args(Precision))
        check_number(f"{name}.weight_decay", self.weight_decay, at_least=0)
        if self.clip_norm is not None:
            check_number(f"{name}.clip_norm", self.clip_norm, above=0)
        if self.gradient_cache_chunk is not None:
            self._check_gradient_cache(self.gradient_cache_chunk)

    def _check_gradient_cache(self, chunk: int) -> None:
        if chunk < 1 or self.batch_size % chunk:
            raise UserError(
                f"{self.stage}.run.gradient_cache_chunk must divide batch_size = "
                f"{self.batch_size}, got {chunk}"
            )
        if self.replicas > 1:
            raise UserError(
                f"{self.stage}.run.gradient_cache_chunk is for one replica, got {self.replicas}: "
                'set it to None, or distribution.strategy.name = "one_device"'
            )

    @property
    def replicas(self) -> int:
        """Number of replicas in sync."""
        return self.strategy.num_replicas_in_sync

    def set_seed_and_precision(self) -> None:
        """Sets the random seed, and the dtype policy of layers that are built afterwards."""
        keras.utils.set_random_seed(self.seed)
        keras.config.set_dtype_policy(self.precision)

    def limit_epochs(self, num_examples: int) -> "TrainingConfig":
        """The settings with the epochs that `max_images` allows."""
        if self.max_images is None or self.epochs * num_examples <= self.max_images:
            return self
        epochs = max(1, self.max_images // num_examples)
        print(
            f"{self.stage}: {epochs} of {self.epochs} epochs, since "
            f"{self.stage}.run.max_images = {self.max_images:,}"
        )
        return dataclasses.replace(self, epochs=epochs)

    def last_step(self, epoch: int, num_examples: int) -> int:
        """The step after which an epoch ends; an epoch need not be a whole number of steps."""
        return epoch * num_examples // self.batch_size

    def build_optimizer(self, num_examples: int) -> keras.optimizers.Optimizer:
        """The optimizer with the schedule for this number of training images."""
        learning_rate = self.schedule(
            batch_size=self.batch_size,
            steps_per_epoch=num_examples / self.batch_size,
            epochs=self.epochs,
        )
        return self.optimizer(learning_rate=learning_rate)
