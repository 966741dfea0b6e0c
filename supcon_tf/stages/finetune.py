"""The finetune stage: trains a pretrained encoder and a classifier together."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from supcon_tf import distribution, models
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import StepBatches, TrainingData, resolve_normalization
from supcon_tf.training.config import Precision, StageCallback, TrainingConfig
from supcon_tf.training.encoder_io import encoder_path, load_encoder, load_parts
from supcon_tf.training.encoder_record import record_encoder
from supcon_tf.training.loop import fit
from supcon_tf.training.objective import classification_objective
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
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    loss: keras.losses.Loss | None = None,
    encoder: str | keras.Model | None = None,
    classifier: str | None = None,
    learning_rate_multipliers: Mapping[str, float] | None = None,
    freeze_through: str | None = None,
    freeze_batch_norm: bool = False,
    max_images: int | None = None,
    zero_init: bool = True,
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
    precision: Precision = "float32",
    clip_norm: float | None = None,
    gradient_cache_chunk: int | None = None,
    compare_with_frozen: bool = True,
) -> None:
    """Trains all weights on one augmented view of each image.

    Args:
      run_dir, source, preprocessing, augmentation, optimizer, schedule, epochs, batch_size, seed,
        jit_compile, checkpoints_to_keep, checkpoint_minutes, checkpoint_steps, callbacks, batches,
        strategy: as in `pretrain.run`.
      loss, encoder, zero_init, classification_head: as in `linear.run`. A model that gin builds as
        `encoder` has the random weights of seed 0, whatever `seed` is.
      classifier: a run directory, whose linear stage's classifier is loaded if it has one, or a
        `.keras` file with a classifier; None for a new classifier.
      learning_rate_multipliers, freeze_through, freeze_batch_norm, max_images: as in
        `pretrain.run`; the encoder of a run starts with all its layers training.
      weight_decay: L2 weight decay of encoder and classifier, not of batch normalisation.
      precision: dtype policy of new layers; the encoder keeps its own. "mixed_float16" scales the
        loss.
      clip_norm, gradient_cache_chunk, compare_with_frozen: as in `pretrain.run`.

    Raises:
      UserError: no encoder or another one than described, or as in `pretrain.run`.
    """
    if not source.has_labels:
        print(f"finetune: skipped, the images of {source.name!r} have no labels")
        return
    config = TrainingConfig(
        stage="finetune",
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
        learning_rate_multipliers=learning_rate_multipliers,
        freeze_through=freeze_through,
        freeze_batch_norm=freeze_batch_norm,
        checkpoints_to_keep=checkpoints_to_keep,
        checkpoint_minutes=checkpoint_minutes,
        checkpoint_steps=checkpoint_steps,
        callbacks=callbacks,
    )

    # Build.
    source = run_images(run_dir, config.stage, source)
    config = config.limit_epochs(source.train.num_examples)
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
            zero_init=zero_init,
            classification_head=classification_head,
        )
        if classifier is not None:
            load_parts(network, classifier, ("classifier",))
    objective = classification_objective(loss, source)
    preprocessing = resolve_normalization(
        run_dir,
        preprocessing,
        source,
        network=network,
        encoder=None if encoder is None else path,
    )
    data = TrainingData(source, preprocessing, augmentation, batches)
    scorer = stage_scorer(network, data, config)
    step_batches = StepBatches(data, network, config)
    parts = models.model_parts(network)
    trained = compile_model(network, parts, objective, data, step_batches, config)
    save_view_sheet(run_dir, data, seed=seed)

    # Fit.
    measures = EpochMeasures(run_dir, network, scorer, data, config, objective)
    rehearse(measures)
    record_encoder(measures, path=path, given=encoder, compare_with_frozen=compare_with_frozen)
    fit(trained, step_batches, config=config, run_dir=run_dir, measures=measures)

    # Evaluate and save.
    evaluate_and_save(measures)
    distribution.wait_for_workers(config.strategy)
