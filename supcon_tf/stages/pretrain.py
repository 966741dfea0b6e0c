"""The pretrain stage: trains an encoder, contrastively or with a classification loss."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from supcon_tf import distribution, models
from supcon_tf.data import semi_supervised
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.models.encoders.keras_file import check_input_scale
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import StepBatches, TrainingData, resolve_normalization
from supcon_tf.training.config import Precision, StageCallback, TrainingConfig
from supcon_tf.training.encoder_io import Part, load_parts
from supcon_tf.training.encoder_record import record_encoder
from supcon_tf.training.loop import fit
from supcon_tf.training.objective import pretraining_objective
from supcon_tf.training.rehearsal import rehearse
from supcon_tf.training.results import EpochMeasures, evaluate_and_save, stage_scorer
from supcon_tf.training.run_data import run_images
from supcon_tf.training.step import compile_model
from supcon_tf.training.view_sheet import save_view_sheet


def run(
    run_dir: RunDir,
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
    checkpoint_minutes: float = 10.0,
    checkpoint_steps: int | None = None,
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
    precision: Precision = "float32",
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
    callbacks: Sequence[StageCallback] = (),
    snapshot_every: int | None = None,
    support: Source | None = None,
    learning_rate_multipliers: Mapping[str, float] | None = None,
    freeze_through: str | None = None,
    freeze_batch_norm: bool = False,
    compare_with_frozen: bool = True,
    max_images: int | None = None,
) -> None:
    """Trains an encoder and writes its model and results into the run directory.

    A contrastive model also trains a linear probe behind a stopped gradient. With a
    `classification_loss` it trains jointly on loss_weight loss + classification_weight
    classification_loss, and both reach the encoder.

    Args:
      run_dir: the run directory.
      source: labelled images.
      preprocessing: crops, size and scale.
      augmentation: random augmentation of the crops.
      model: image_shape, num_classes -> the model to train, such as `models.contrastive_model`,
        `models.classification_model`, `momentum_memory.momentum_memory_model` (whose queue the
        loss then uses) or `swav.swav_model`.
      loss: loss of the projections [B, V, D] or of the class logits [B, C]; or {output: loss} for a
        model with several outputs, such as {"prototypes": ..., "projection": ...}. The label -1
        means no label; the probe leaves such samples out.
      optimizer: learning_rate -> the optimizer.
      schedule: batch_size, steps_per_epoch, epochs -> the learning rate, as
        `optimizers.warmup_schedule`.
      epochs: passes over the training images.
      batch_size: images per step, over all replicas; each is seen in all its views.
      loss_weight: weight of `loss`.
      classification_loss: loss of a contrastive model's logits [B, C]; None trains a probe.
      classification_weight: weight of `classification_loss` or of the probe's loss.
      warm_start: a run directory or a `.keras` file with initial weights; None for random ones.
      warm_start_parts: the parts to load from there.
      weight_decay: L2 weight decay of encoder and trained heads, not of batch normalisation.
      seed: seed of the initial weights, the order of images and the views.
      jit_compile: compile the step with XLA.
      checkpoints_to_keep: number of recent checkpoints to keep.
      checkpoint_minutes, checkpoint_steps: also saves within an epoch after this time or number of
        steps since the last checkpoint; None for no limit of steps.
      batches: how batches are made, as `pipeline.training_batches`.
      strategy: where to train; None for TensorFlow's default.
      precision: dtype policy of the layers. "mixed_bfloat16" and "mixed_float16" keep weights,
        normalisations and losses in float32; the latter scales the loss.
      clip_norm: largest global norm of the gradient of the whole batch; None for no limit.
      gradient_cache_chunk: samples that go through the encoder at a time, for batches larger than
        the memory; see `training.step.TrainingModel`.
      callbacks: Keras callbacks, or functions: steps -> a Keras callback, with the number of steps
        of the whole stage, as `losses.MarginAnnealing` needs it. At the end of an epoch they get
        its measures, also those on the validation split: see docs/runs.md.
      snapshot_every: number of epochs between snapshots of the model, saved as
        checkpoints/pretrain/model_0005.keras; other stages can use them as encoders. Each adds the
        neighbour classifiers' accuracies and the contrastive loss on the test split to the curve,
        which no choice depends on. None for no snapshots.
      support: its training images are the references of the neighbour classifiers, for studies
        where only these labels are known; None for the training images of `source`. A source
        without labels has the classes of the support, for `semi_supervised.batches`.
      learning_rate_multipliers: name of a part of the model ("encoder", "projection_head",
        "prototypes", "classifier") or regular expression -> factor for the learning rate of its
        variables, or of those whose path contains the expression; the first match counts, and 1
        is for the others. {"encoder": 0.1} trains a pretrained encoder at a tenth of the rate,
        {"^stem_|^group[12]_": 0.1} the lower half of a `models.resnet`.
      freeze_through: name of a layer of the encoder, or how the names of a block start, such as
        "group2" of a `models.resnet`: the last layer with such a name and all before it do not
        train. None freezes no first layers.
      freeze_batch_norm: run the encoder's batch normalisation with its moving averages and train
        neither them nor its scale and offset, as for pretrained encoders and small batches.
      compare_with_frozen: measure the kNN accuracy of a pretrained encoder before it trains, and
        that of a logistic regression on its features for up to 5,000 training images. This takes as
        long as the evaluation after training.
      max_images: limits the epochs to this many images in all, so that training on many images
        takes about as long as on few; at least one epoch. None for no limit.

    Raises:
      UserError: a value out of range, a support of other classes, a loss that does not fit the
        model or the labels, or weights that do not fit the model.
    """
    config = TrainingConfig(
        stage="pretrain",
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        strategy=strategy or tf.distribute.get_strategy(),
        max_images=max_images,
        weight_decay=weight_decay,
        seed=seed,
        precision=precision,
        jit_compile=jit_compile,
        clip_norm=clip_norm,
        gradient_cache_chunk=gradient_cache_chunk,
        checkpoints_to_keep=checkpoints_to_keep,
        checkpoint_minutes=checkpoint_minutes,
        checkpoint_steps=checkpoint_steps,
        learning_rate_multipliers=learning_rate_multipliers,
        freeze_through=freeze_through,
        freeze_batch_norm=freeze_batch_norm,
        snapshot_every=snapshot_every,
        callbacks=callbacks,
    )
    _check_support(source, support, batches)

    # Build.
    source = run_images(run_dir, config.stage, source)
    # Unlabelled images have the classes of their labelled part.
    labelled = source if source.has_labels or support is None else support
    config = config.limit_epochs(source.train.num_examples)
    config.set_seed_and_precision()
    with config.strategy.scope():
        is_joint = classification_loss is not None
        network = _build_model(model, preprocessing, labelled, is_joint=is_joint)
        check_input_scale(models.model_parts(network)["encoder"], "the encoder")
        if warm_start is not None:
            load_parts(network, warm_start, warm_start_parts)
    objective = pretraining_objective(
        network,
        loss,
        labelled,
        weight=loss_weight,
        joint_loss=classification_loss,
        joint_weight=classification_weight,
    )
    preprocessing = resolve_normalization(
        run_dir, preprocessing, source, network=network, encoder=warm_start, keep=True
    )
    data = TrainingData(source, preprocessing, augmentation, batches)
    scorer = stage_scorer(network, data, config)
    step_batches = StepBatches(data, network, config, needs_positives=objective.needs_positives)
    parts = models.model_parts(network)
    trained = compile_model(network, parts, objective, data, step_batches, config)
    save_view_sheet(run_dir, data, seed=seed)

    # Fit.
    measures = EpochMeasures(run_dir, network, scorer, data, config, objective, support)
    rehearse(measures)
    record_encoder(
        measures,
        path=warm_start if "encoder" in warm_start_parts else None,
        compare_with_frozen=compare_with_frozen,
    )
    fit(trained, step_batches, config=config, run_dir=run_dir, measures=measures)

    # Evaluate and save.
    evaluate_and_save(measures)
    distribution.wait_for_workers(config.strategy)


def _build_model(
    model: Callable[..., keras.Model],
    preprocessing: Preprocessing,
    source: Source,
    *,
    is_joint: bool,
) -> keras.Model:
    # Without labels there is a probe too, which never trains.
    num_classes = source.num_classes if source.has_labels else 2
    sizes = {"image_shape": preprocessing.image_shape, "num_classes": num_classes}
    if not is_joint:
        return model(**sizes)
    try:
        return model(**sizes, stop_classifier_gradient=False)
    except TypeError as error:
        if "stop_classifier_gradient" not in str(error):
            raise
        raise UserError(
            "pretrain.run.classification_loss is for models with projections, such as "
            "models.contrastive_model: give the loss of another model as pretrain.run.loss"
        ) from None


def _check_support(source: Source, support: Source | None, batches: Callable[..., Batches]) -> None:
    if support is None:
        return
    if not source.has_labels:
        made_by = batches.func if isinstance(batches, functools.partial) else batches
        # gin wraps the function.
        if inspect.unwrap(made_by) is not inspect.unwrap(semi_supervised.batches):
            raise UserError(
                f"pretrain.run.support must be None, as {source.name!r} has no labels, or "
                "pretrain.run.batches = @semi_supervised.batches must add labelled images"
            )
    elif support.class_names != source.class_names:
        raise UserError(
            f"pretrain.run.support must have the {source.num_classes} classes of "
            f"{source.name!r}, got {support.num_classes} of {support.name!r}"
        )
