"""Training an encoder: contrastively with a projection head, or with a classification loss."""

from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from supcon_tf.data.batches import Batches, training_batches
from supcon_tf.data.sources import Source
from supcon_tf.data.views import Augmentation, Preprocessing
from supcon_tf.stages.run_folder import RunFolder
from supcon_tf.stages.stage import run_stage

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def run(
    folder: RunFolder,
    *,
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    model: Callable[..., keras.Model],
    loss: keras.losses.Loss,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    weight_decay: float = 0.0,
    seed: int = 0,
    jit_compile: bool = False,
    checkpoints_to_keep: int = 3,
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
    precision: Precision = "float32",
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
) -> None:
    """Trains an encoder and leaves its model and results in the run's folder.

    A contrastive model trains its linear probe along, behind a stopped gradient.

    Args:
      folder: the run's.
      source: labelled images.
      preprocessing: crops, size and scale.
      augmentation: what makes the views differ.
      model: image_shape, num_classes -> `models.contrastive_model` or
        `models.classification_model`.
      loss: of the projections [B, V, D], or of the class scores [B, C].
      optimizer: learning_rate -> the optimizer.
      schedule: batch_size, steps_per_epoch, epochs -> the learning rate, as
        `optimizers.warmup_schedule`.
      epochs: passes over the training images.
      batch_size: images per step, over all replicas; each is seen in all its views.
      weight_decay: of the encoder and what the loss stands on, not of batch normalisation.
      seed: of the initial weights, the order of images and the views.
      jit_compile: compile the step with XLA.
      checkpoints_to_keep: the last so many.
      batches: how batches are made, as `training_batches`.
      strategy: where to train; None is where TensorFlow would.
      precision: of the layers; "mixed_bfloat16" and "mixed_float16" keep the weights, the
        normalisations and the losses in float32, the latter with loss scaling.
      clip_norm: largest global norm of the gradient of the whole batch; None for any.
      gradient_cache_chunk: samples that go through the encoder at a time, for a batch larger than
        the memory; see `training_model.TrainingModel`.
    """
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        built = model(image_shape=preprocessing.image_shape, num_classes=source.num_classes)
    if "projection" in built.output:
        probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        losses = {"projection": loss, "logits": probe_loss}
        decayed = ("encoder", "projection_head")
    else:
        losses = {"logits": loss}
        decayed = ("encoder", "classifier")
    run_stage(
        folder,
        "pretrain",
        built,
        losses=losses,
        decayed=decayed,
        source=source,
        preprocessing=preprocessing,
        augmentation=augmentation,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        jit_compile=jit_compile,
        checkpoints_to_keep=checkpoints_to_keep,
        batches=batches,
        strategy=strategy,
        clip_norm=clip_norm,
        gradient_cache_chunk=gradient_cache_chunk,
    )
