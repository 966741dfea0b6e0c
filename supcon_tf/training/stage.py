"""What every training stage does once its model is built: compile, train, measure, save."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.data.normalization import measure
from supcon_tf.data.pipeline import Batches
from supcon_tf.data.preprocessing import Augmentation, Normalization, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import StreamedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation.cached_features import FeaturePassthrough
from supcon_tf.evaluation.scorer import Scorer, measure_and_save
from supcon_tf.models import model_parts
from supcon_tf.optimizers import apply_weight_decay, multiply_learning_rates
from supcon_tf.run_dir import RunDir
from supcon_tf.training.device_augmentation import augmenting_model
from supcon_tf.training.loop import train
from supcon_tf.training.metrics import training_metrics
from supcon_tf.training.step import TrainingModel
from supcon_tf.training.view_sheet import view_sheet

# Steps between two looks of the callbacks, where features are cached.
STEPS_ON_FEATURES = 8
# Images that one device scores at a time; a batch may be of many devices, or of many chunks.
MAX_SCORED = 256


def run_stage(
    folder: RunDir,
    stage: str,
    model: keras.Model,
    *,
    losses: Mapping[str, keras.losses.Loss],
    decayed: Sequence[str],
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    weight_decay: float,
    seed: int,
    jit_compile: bool,
    checkpoints_to_keep: int,
    batches: Callable[..., Batches],
    strategy: tf.distribute.Strategy,
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
    loss_weights: Mapping[str, float] | None = None,
    learning_rate_multipliers: Mapping[str, float] | None = None,
    callbacks: Sequence[Callable[..., keras.callbacks.Callback]] = (),
    snapshot_every: int | None = None,
    frozen_encoder: Path | None = None,
    support: Source | None = None,
) -> None:
    """Trains a built model and leaves model, metrics, curves, pictures and export in the folder.

    Args:
      folder: the run's.
      stage: its name, such as "linear".
      model: [B, V, H, W, C], several of these by name, or [B, H, W, C] -> {output: tensor}.
      losses: one per output of the model; each takes the labels.
      decayed: the parts of the model, as in `models.model_parts`, that the losses train and weight
        decay acts on; the stage classifies where "classifier" is one of them, and not a probe.
      source, preprocessing, augmentation, optimizer, schedule, epochs, batch_size, weight_decay,
        seed, jit_compile, checkpoints_to_keep, batches, strategy, callbacks, clip_norm,
        gradient_cache_chunk, snapshot_every: as in `pretrain.run`.
      loss_weights: of the losses in their sum; None is 1 for each.
      learning_rate_multipliers: as in `finetune.run`.
      frozen_encoder: the file of the encoder, to train the classifier on its cached features;
        None trains on augmented views.
      support: as in `pretrain.run`.

    Raises:
      UserError: numbers that cannot be, what cannot be done on several replicas, batches on
        cached features that need images, or as in `training.train`.
    """
    _check_numbers(stage, epochs, batch_size, strategy, clip_norm, gradient_cache_chunk)
    if snapshot_every is not None and snapshot_every < 1:
        raise UserError(f"{stage}.run.snapshot_every must be >= 1 or None, got {snapshot_every}")
    if gradient_cache_chunk is not None and "prototypes" in losses:
        raise UserError(
            f"{stage}.run.gradient_cache_chunk would make SwAV's codes of a chunk, got "
            f"{gradient_cache_chunk}: set it to None"
        )
    num_examples = source.train.num_examples
    # {name: shape} of a model of crops of several sizes.
    shapes = model.input if isinstance(model.input, dict) else {"views": model.input}
    has_views = all(len(images.shape) == 5 for images in shapes.values())
    preprocessing = _normalized(folder, preprocessing, source)
    scorer = Scorer(
        model,
        preprocessing=preprocessing,
        batch_size=min(
            gradient_cache_chunk or batch_size // strategy.num_replicas_in_sync, MAX_SCORED
        ),
        stage=stage,
        multi_label=source.is_multi_label,
    )
    trained, train_split, train_preprocessing = model, source.train, preprocessing
    seconds_of_features = 0.0
    if frozen_encoder is not None:
        if not folder.is_chief:
            distribution.wait_for_workers(strategy)
        features = scorer.cache_features(folder, source, frozen_encoder)
        if folder.is_chief:
            distribution.wait_for_workers(strategy)
        with strategy.scope():
            trained = scorer.model_on_features()
        train_split, train_preprocessing = features["training"].as_split(), FeaturePassthrough()
        seconds_of_features = sum(found.seconds for found in features.values())

    @functools.cache
    def batches_of(host: int, num_hosts: int) -> Batches:
        return batches(
            train_split,
            preprocessing=train_preprocessing,
            augmentation=augmentation,
            num_views=sum(images.shape[1] for images in shapes.values()) if has_views else 1,
            batch_size=batch_size,
            num_classes=source.num_classes,
            seed=seed,
            shard=(host, num_hosts),
        )

    def steps_of(host: int, num_hosts: int, start: int, stop: int) -> tf.data.Dataset:
        return batches_of(host, num_hosts)(start, stop).map(
            lambda images, labels: (
                images if has_views else tf.nest.map_structure(lambda x: x[:, 0], images),
                # Keras' metrics look for labels of every output, those without a loss too.
                dict.fromkeys(trained.output, labels),
            )
        )

    with strategy.scope():
        compiled_optimizer = optimizer(
            learning_rate=schedule(
                batch_size=batch_size, steps_per_epoch=num_examples / batch_size, epochs=epochs
            )
        )
        _decay(compiled_optimizer, weight_decay, model, decayed)
        compiled_optimizer.build(model.trainable_variables)
        if learning_rate_multipliers:
            multiply_learning_rates(
                compiled_optimizer, model.trainable_variables, learning_rate_multipliers
            )
        made = batches_of(0, 1)(0, 1).element_spec[0]
        rows = tf.nest.flatten(made)[0].shape[0]
        # Labelled rows beside those of the batch may end before the training does, and a stream
        # is one data set more for each epoch.
        one_fit = rows == batch_size and not isinstance(train_split, StreamedSplit)
        if gradient_cache_chunk is not None and rows and rows % gradient_cache_chunk:
            raise UserError(
                f"{stage}.run.gradient_cache_chunk must divide the {rows} rows of a batch, the "
                f"labelled ones too, got {gradient_cache_chunk}"
            )
        if isinstance(made, dict) and "seeds" in made:
            if frozen_encoder is not None:
                raise UserError(
                    f"{stage}.run.cache_features has nothing to augment, got defer_to_device: set "
                    f"{stage}/pipeline.training_batches.defer_to_device = False"
                )
            trained = augmenting_model(model, preprocessing, augmentation)
        if clip_norm is not None or gradient_cache_chunk is not None:
            trained = TrainingModel(
                trained.input,
                trained.output,
                clip_norm=clip_norm,
                gradient_cache_chunk=gradient_cache_chunk,
            )
        trained.compile(
            compiled_optimizer,
            dict(losses),
            loss_weights=None if loss_weights is None else dict(loss_weights),
            metrics={"logits": training_metrics(losses, multi_label=source.is_multi_label)},
            jit_compile=jit_compile,
            # A classifier's step is shorter than the way to the next one.
            steps_per_execution=(
                STEPS_ON_FEATURES if frozen_encoder and strategy.num_replicas_in_sync == 1 else 1
            ),
        )

    if folder.is_chief and frozen_encoder is None and not folder.view_sheet.exists():
        folder.view_sheet.write_bytes(
            view_sheet(source.train, preprocessing, augmentation, seed=seed)
        )

    def snapshot(epoch: int) -> dict[str, float]:
        if snapshot_every is None or epoch % snapshot_every:
            return {}
        folder.checkpoints(stage).mkdir(parents=True, exist_ok=True)
        model.save(folder.model(stage, epoch))
        held_out = scorer.score(source.test, "held-out")
        return held_out.by_neighbors(scorer.references(source, support))

    validation = source.validation
    train(
        trained,
        functools.partial(distribution.input_of_replicas, strategy, steps_of),
        folder=folder,
        stage=stage,
        epochs=epochs,
        batch_size=batch_size,
        num_examples=num_examples,
        validation_accuracy=(
            None if validation is None else lambda: scorer.score(validation, "validation").accuracy
        ),
        accuracy_name="mean_average_precision" if source.is_multi_label else "accuracy",
        checkpoints_to_keep=checkpoints_to_keep,
        after_epoch=snapshot,
        one_fit=one_fit,
        callbacks=[make(steps=epochs * num_examples // batch_size) for make in callbacks],
    )
    if folder.is_chief:
        measure_and_save(
            folder,
            stage,
            model,
            scorer,
            source=source,
            support=support,
            preprocessing=preprocessing,
            # The probe of a contrastive run is a measurement and does not classify.
            classifies="classifier" in decayed,
            seconds_of_features=seconds_of_features,
        )
    distribution.wait_for_workers(strategy)


def _decay(
    optimizer: keras.optimizers.Optimizer,
    weight_decay: float,
    model: keras.Model,
    decayed: Sequence[str],
) -> None:
    variables = {name: part.trainable_variables for name, part in model_parts(model).items()}
    apply_weight_decay(
        optimizer,
        weight_decay,
        decayed=[variable for name in decayed for variable in variables.pop(name)],
        others=[variable for part in variables.values() for variable in part],
    )


def _check_numbers(
    stage: str,
    epochs: int,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    clip_norm: float | None,
    gradient_cache_chunk: int | None,
) -> None:
    replicas = strategy.num_replicas_in_sync
    if epochs < 1:
        raise UserError(f"{stage}.run.epochs must be >= 1, got {epochs}")
    if batch_size < 1 or batch_size % replicas:
        raise UserError(
            f"{stage}.run.batch_size must be a positive multiple of the {replicas} replicas, got "
            f"{batch_size}"
        )
    if clip_norm is not None and clip_norm <= 0:
        raise UserError(f"{stage}.run.clip_norm must be > 0 or None, got {clip_norm}")
    if gradient_cache_chunk is None:
        return
    if gradient_cache_chunk < 1 or batch_size % gradient_cache_chunk:
        raise UserError(
            f"{stage}.run.gradient_cache_chunk must divide batch_size = {batch_size}, got "
            f"{gradient_cache_chunk}"
        )
    if replicas > 1:
        raise UserError(
            f"{stage}.run.gradient_cache_chunk is for one replica, got {replicas}: set it to None, "
            'or distribution.strategy.name = "one_device"'
        )


def _normalized(folder: RunDir, preprocessing: Preprocessing, source: Source) -> Preprocessing:
    """With the constants of the run: measured once, and the same for all its stages."""
    if preprocessing.normalization != "measure":
        return preprocessing
    constants: Normalization | None = folder.normalization()
    if constants is None:
        constants = measure(preprocessing, source.train)
        folder.set_normalization(*constants)
    return dataclasses.replace(preprocessing, normalization=constants)
