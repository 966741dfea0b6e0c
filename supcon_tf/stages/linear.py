"""The linear stage: trains a linear classifier on the embedding of a frozen encoder."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import keras
import tensorflow as tf

from supcon_tf import distribution, models
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError, check_choice
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import (
    StepBatches,
    TrainingData,
    resolve_normalization,
    with_cached_features,
)
from supcon_tf.training.config import StageCallback, TrainingConfig
from supcon_tf.training.encoder_io import encoder_file, encoder_path, load_encoder
from supcon_tf.training.encoder_record import record_encoder
from supcon_tf.training.logistic import fit_logistic_regression
from supcon_tf.training.loop import fit
from supcon_tf.training.objective import classification_objective
from supcon_tf.training.rehearsal import rehearse
from supcon_tf.training.results import EpochMeasures, evaluate_and_save, stage_scorer
from supcon_tf.training.run_data import run_images
from supcon_tf.training.step import compile_model
from supcon_tf.training.view_sheet import save_view_sheet

Solver = Literal["steps", "lbfgs"]


def run(
    run_dir: RunDir,
    *,
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    loss: keras.losses.Loss | None = None,
    encoder: str | keras.Model | None = None,
    zero_init: bool = False,
    cache_features: bool = False,
    weight_decay: float = 0.0,
    seed: int = 0,
    jit_compile: bool = False,
    checkpoints_to_keep: int = 3,
    checkpoint_minutes: float = 10.0,
    checkpoint_steps: int | None = None,
    callbacks: Sequence[StageCallback] = (),
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
    classification_head: Callable[..., keras.Model] = models.classification_head,
    solver: Solver = "steps",
) -> None:
    """Trains the classifier on one augmented view of each image; the encoder is in inference mode.

    Args:
      run_dir: the run directory.
      source, preprocessing, augmentation, optimizer, schedule, epochs, batch_size, seed,
        jit_compile, checkpoints_to_keep, checkpoint_minutes, checkpoint_steps, callbacks, batches,
        strategy: as in `pretrain.run`.
      loss: loss of the class logits [B, C]; None for cross-entropy, binary for images with several
        labels.
      encoder: a run directory, a `.keras` file of a model of this package or of any Keras model
        from images to vectors, or such a model itself, as `models.pretrained` makes it, which is
        saved in the run directory; None for the encoder that this run pretrained. The random
        weights of a model that gin builds, such as @models.resnet(), are those of seed 0, whatever
        `seed` is.
      zero_init: initialise the classifier's kernel with zeros.
      cache_features: train on the features of the evaluation crops, without augmentation. They
        are computed once and kept in the run directory, and an epoch takes as long as the
        classifier alone. They take 4 bytes per image and dimension of the embedding, in memory
        too.
      weight_decay: L2 weight decay of the classifier.
      classification_head: as in `models.classification_model`.
      solver: "steps" trains by the optimizer. "lbfgs" solves the L2-regularised logistic regression
        on cached features, scaled to unit length, or for several labels per image a binary one for
        each class; the validation split, or shares of the training images, choose its strength
        (`evaluation.logistic_regression`). There is one epoch and no rate; of the settings of
        training only the seed counts.

    Raises:
      UserError: no encoder or another one than described, or as in `pretrain.run`.
    """
    if not source.has_labels:
        print(f"linear: skipped, the images of {source.name!r} have no labels")
        return
    head = classification_head
    check_choice("linear.run.solver", solver, get_args(Solver))
    if solver == "lbfgs":
        _check_lbfgs(loss, weight_decay, callbacks)
        head = functools.partial(models.normalizing_head, head=head)
    config = TrainingConfig(
        stage="linear",
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        # LBFGS has no batches, so that few images are no reason to change it.
        batch_size=batch_size if solver == "steps" else min(batch_size, source.train.num_examples),
        strategy=strategy or tf.distribute.get_strategy(),
        weight_decay=weight_decay,
        seed=seed,
        jit_compile=jit_compile,
        checkpoints_to_keep=checkpoints_to_keep,
        checkpoint_minutes=checkpoint_minutes,
        checkpoint_steps=checkpoint_steps,
        callbacks=callbacks,
    )

    # Build.
    source = run_images(run_dir, config.stage, source)
    config.set_seed_and_precision()
    path = encoder_path(
        encoder,
        run_dir,
        stage=config.stage,
        image_shape=preprocessing.image_shape,
        strategy=config.strategy,
    )
    with config.strategy.scope():
        network = models.classification_model(
            load_encoder(path, image_shape=preprocessing.image_shape),
            image_shape=preprocessing.image_shape,
            num_classes=source.num_classes,
            train_encoder=False,
            zero_init=zero_init,
            classification_head=head,
        )
    objective = classification_objective(loss, source, trained_parts=("classifier",))
    preprocessing = resolve_normalization(
        run_dir,
        preprocessing,
        source,
        network=network,
        encoder=None if encoder is None else path,
    )
    data, trainable = TrainingData(source, preprocessing, augmentation, batches), network
    scorer = stage_scorer(network, data, config)
    if cache_features or solver == "lbfgs":
        file = encoder_file(path)
        data = with_cached_features(data, run_dir, scorer, file, config.strategy)
        with config.strategy.scope():
            trainable = scorer.model_on_features()
    step_batches = StepBatches(data, trainable, config)
    parts = models.model_parts(network)
    trained = compile_model(trainable, parts, objective, data, step_batches, config)
    save_view_sheet(run_dir, data, seed=seed)

    # Fit.
    measures = EpochMeasures(run_dir, network, scorer, data, config, objective)
    rehearse(measures)
    record_encoder(measures, path=path, given=encoder)
    if solver == "lbfgs":
        fit_logistic_regression(trained, data, scorer, config=config, run_dir=run_dir)
    else:
        fit(trained, step_batches, config=config, run_dir=run_dir, measures=measures)

    # Evaluate and save.
    evaluate_and_save(measures)
    distribution.wait_for_workers(config.strategy)


def _check_lbfgs(
    loss: keras.losses.Loss | None, weight_decay: float, callbacks: Sequence[StageCallback]
) -> None:
    if loss is not None or weight_decay:
        raise UserError(
            'linear.run.solver = "lbfgs" minimises the cross-entropy with an L2 term that it '
            "chooses: set linear.run.loss = None and linear.run.weight_decay = 0"
        )
    if callbacks:
        raise UserError('linear.run.solver = "lbfgs" has no steps: set linear.run.callbacks = ()')
