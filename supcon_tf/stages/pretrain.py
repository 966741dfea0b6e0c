"""Training an encoder: contrastively with a projection head, or with a classification loss."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import keras
import tensorflow as tf

from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.losses import SwAVLoss
from supcon_tf.models import MemoryLoss, find_memory, model_parts
from supcon_tf.run_dir import RunDir
from supcon_tf.stages.linear import with_pretraining_normalization
from supcon_tf.training.encoder_io import Part, load_parts
from supcon_tf.training.objective import OF_CLASS_SCORES, OF_PROJECTIONS, class_loss
from supcon_tf.training.stage import run_stage

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def run(
    folder: RunDir,
    *,
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    model: Callable[..., keras.Model],
    loss: keras.losses.Loss | Mapping[str, keras.losses.Loss],
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    loss_weight: float = 1.0,
    classification_loss: keras.losses.Loss | None = None,
    classification_weight: float = 1.0,
    warm_start: str | None = None,
    warm_start_parts: Sequence[Part] = ("encoder",),
    weight_decay: float = 0.0,
    seed: int = 0,
    jit_compile: bool = False,
    checkpoints_to_keep: int = 3,
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
    precision: Precision = "float32",
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
    callbacks: Sequence[Callable[..., keras.callbacks.Callback]] = (),
    snapshot_every: int | None = None,
    support: Source | None = None,
) -> None:
    """Trains an encoder and leaves its model and results in the run's folder.

    A contrastive model trains its linear probe along, behind a stopped gradient; with a
    `classification_loss` it trains jointly on loss_weight loss + classification_weight
    classification_loss, both of which reach the encoder.

    Args:
      folder: the run's.
      source: labelled images.
      preprocessing: crops, size and scale.
      augmentation: what makes the views differ.
      model: image_shape, num_classes -> `models.contrastive_model`,
        `models.classification_model`, `momentum_memory.momentum_memory_model`, whose queue the
        loss then takes, or `swav.swav_model`.
      loss: of the projections [B, V, D], or of the class scores [B, C]; or losses by the outputs
        of a model that has more, such as {"prototypes": ..., "projection": ...}. A label of -1 is
        none: the probe leaves the sample out.
      optimizer: learning_rate -> the optimizer.
      schedule: batch_size, steps_per_epoch, epochs -> the learning rate, as
        `optimizers.warmup_schedule`.
      loss_weight: of that loss.
      classification_loss: of the class scores [B, C] of a contrastive model; None trains a probe.
      classification_weight: of that one.
      warm_start: a run's folder or a `.keras` file with weights to begin from; None for fresh ones.
      warm_start_parts: what to take from there.
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
      callbacks: steps -> a callback of `fit` that is told how many steps the stage has, such as
        `losses.MarginAnnealing`. It should count steps: what `fit` takes for an epoch may be many.
      snapshot_every: after every so many epochs the model is kept as
        checkpoints/pretrain/model_0005.keras, which other stages take as an encoder, and the
        accuracies of the neighbour classifiers enter the curve; None for the end only. They are
        of the held-out images and choose nothing.
      support: whose training images are the references of kNN, prototypes and soft neighbours,
        where no more labels may be known than those; None for the training images of `source`.

    Raises:
      UserError: an unknown precision, a support of other classes, or as in `run_stage`,
        `class_loss` and `load_parts`.
    """
    keras.utils.set_random_seed(seed)
    set_precision(precision, stage="pretrain")
    strategy = strategy or tf.distribute.get_strategy()
    if support is not None and support.class_names != source.class_names:
        raise UserError(
            f"pretrain.run.support must have the {source.num_classes} classes of "
            f"{source.name!r}, got {support.num_classes} of {support.name!r}"
        )
    joint = {} if classification_loss is None else {"stop_classifier_gradient": False}
    if not joint.keys() <= inspect.signature(model).parameters.keys():
        raise UserError(
            "classification_loss is for models.contrastive_model, got another model: give its loss "
            "as pretrain.run.loss"
        )
    with strategy.scope():
        built = model(
            image_shape=preprocessing.image_shape, num_classes=source.num_classes, **joint
        )
        if warm_start is not None:
            load_parts(built, warm_start, warm_start_parts)
    memory = find_memory(built)
    if memory is not None:
        if gradient_cache_chunk is not None:
            raise UserError(
                "pretrain.run.gradient_cache_chunk must be None with a memory, whose momentum "
                f"encoder would move once for each chunk, got {gradient_cache_chunk}"
            )
        loss = MemoryLoss(loss, memory)
        print(f"pretrain: a memory of {memory.size:,} keys, {memory.num_bytes / 2**20:.1f} MiB")
    if "projection" in built.output:
        own = loss if isinstance(loss, Mapping) else {"projection": loss}
        for each in own.values():
            if isinstance(each, OF_CLASS_SCORES):
                raise UserError(
                    f"{type(each).__name__} is of class scores, and the model gives projections: "
                    "set pretrain.run.model = @models.classification_model, or give the loss as "
                    "pretrain.run.classification_loss"
                )
        _check_codes(built, own.get("prototypes"))
        losses = {**own, "logits": class_loss(classification_loss, source, ignore_class=-1)}
        loss_weights = {**dict.fromkeys(own, loss_weight), "logits": classification_weight}
        decayed = tuple(name for name in model_parts(built) if joint or name != "classifier")
    elif isinstance(loss, OF_PROJECTIONS):
        raise UserError(
            f"{type(loss).__name__} is of projections, and the model gives class scores: set "
            "pretrain.run.model = @models.contrastive_model"
        )
    else:
        losses = {"logits": class_loss(loss, source)}
        loss_weights = {"logits": loss_weight}
        decayed = ("encoder", "classifier")
    as_seen = with_pretraining_normalization(preprocessing, warm_start)
    if preprocessing.normalization == "measure" and isinstance(as_seen.normalization, tuple):
        # The stages to come see what this one's encoder sees.
        folder.set_normalization(*as_seen.normalization)
    run_stage(
        folder,
        "pretrain",
        built,
        losses=losses,
        loss_weights=loss_weights,
        decayed=decayed,
        source=source,
        preprocessing=as_seen,
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
        callbacks=callbacks,
        snapshot_every=snapshot_every,
        support=support,
    )


def _check_codes(model: keras.Model, loss: keras.losses.Loss | None) -> None:
    """Refuses a SwAV loss that would take scores for codes, or codes for scores."""
    if not isinstance(loss, SwAVLoss):
        return
    assigned = model.get_layer("prototypes").options["num_assigned"]
    if loss.num_assigned != assigned:
        raise UserError(
            f"losses.SwAVLoss.num_assigned must be {assigned}, the crops of the first group, got "
            f"{loss.num_assigned}"
        )


def set_precision(precision: Precision, *, stage: str) -> None:
    """Of the layers that are built from here on.

    Raises:
      UserError: another precision, such as 16 bits for the weights too.
    """
    if precision not in get_args(Precision):
        raise UserError(
            f"{stage}.run.precision must be one of {get_args(Precision)}, got {precision!r}"
        )
    keras.config.set_dtype_policy(precision)
