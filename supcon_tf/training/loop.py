"""The epoch loop of the training stages."""

import keras
import tensorflow as tf

from supcon_tf.errors import Stopped, UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training import debug
from supcon_tf.training.batches import StepBatches
from supcon_tf.training.callbacks import (
    CountSteps,
    EndEpochs,
    SaveAndStop,
    StageCallbacks,
    StopWhenNotFinite,
)
from supcon_tf.training.checkpoint import Progress
from supcon_tf.training.config import TrainingConfig
from supcon_tf.training.results import EpochMeasures
from supcon_tf.training.signals import Signals

# Maximum number of images in one input pipeline, which stores their order, 8 bytes each.
IMAGES_PER_PIPELINE = 2**20
# TensorFlow raises the same error for a full disk and for too little memory.
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded")


def fit(
    model: keras.Model,
    batches: StepBatches,
    *,
    config: TrainingConfig,
    run_dir: RunDir,
    measures: EpochMeasures,
) -> None:
    """Trains a compiled model, from its last checkpoint if there is one.

    An epoch is num_examples / batch_size steps, which need not be whole. One call of Keras' `fit`
    covers as many epochs as possible, since each call builds the input pipeline again, which takes
    about a second.

    Args:
      model: the compiled model.
      batches: the batches of the training steps.
      config: settings of the stage.
      run_dir: where checkpoints, curves and TensorBoard scalars go.
      measures: what the chief measures after each epoch; the weights of the epoch that is best by
        `measures.best_by` are in the model at the end.

    Raises:
      UserError: a loss that is not finite, no memory for a batch, no space for a checkpoint, or
        a `fit` that ended before its last step.
      Stopped: after SIGINT, SIGTERM or SIGHUP, when the step is saved.
    """
    progress = Progress(model, run_dir, config.stage, config.checkpoints_to_keep)
    per_fit = IMAGES_PER_PIPELINE // config.batch_size
    if not batches.one_pipeline or model.steps_per_execution > 1:
        per_fit = 0
    epochs_by_end: dict[int, int] = {}
    for epoch in range(1, config.epochs + 1):
        epochs_by_end.setdefault(config.last_step(epoch, batches.num_examples), epoch)
    total_steps = config.last_step(config.epochs, batches.num_examples)
    callbacks = StageCallbacks(progress, config=config, steps=total_steps)
    with _scalar_writer(run_dir, config.stage).as_default(), Signals() as signals:
        while ahead := [end for end in epochs_by_end if end > int(progress.step)]:
            start = int(progress.step)
            ends = [ahead[0], *(end for end in ahead[1:] if end - start <= per_fit)]
            end_epochs = EndEpochs(
                progress,
                epochs={end: epochs_by_end[end] for end in ends},
                config=config,
                measures=measures if run_dir.is_chief else None,
                callbacks=callbacks,
                next_stages=run_dir.next_stages,
            )
            _fit_steps(
                model,
                batches,
                (start, ends[-1]),
                progress=progress,
                callbacks=[
                    CountSteps(progress.step),
                    StopWhenNotFinite(progress.step, config=config),
                    callbacks,
                    # Last, so that a checkpoint never counts an epoch before its record exists.
                    end_epochs,
                    SaveAndStop(
                        progress,
                        end_epochs.save,
                        config=config,
                        signals=signals,
                        is_chief=run_dir.is_chief,
                    ),
                ],
                config=config,
                run_dir=run_dir,
                signals=signals,
            )
            # Keras treats an error of the input pipeline as the end of the data.
            if end_epochs.last_end != ends[-1]:
                raise UserError(
                    f"{config.stage} ended after step {int(progress.step)} of {ends[-1]}: its "
                    "input was too short, or a callback stopped it"
                )
    if measures.best_by is not None and run_dir.is_chief:
        progress.restore_best()
    # With use_ema the averages of the last or best epoch become the weights.
    model.optimizer.finalize_variable_values(model.trainable_variables)


def _fit_steps(
    model: keras.Model,
    batches: StepBatches,
    ends: tuple[int, int],
    *,
    progress: Progress,
    callbacks: list[keras.callbacks.Callback],
    config: TrainingConfig,
    run_dir: RunDir,
    signals: Signals,
) -> None:
    """One call of `fit`; a full disk or too little memory is a UserError."""
    try:
        step_batches = batches(*ends)
        progress.build_metrics(step_batches)
        model.fit(
            step_batches,
            steps_per_epoch=ends[1] - ends[0],
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    except tf.errors.InvalidArgumentError as error:
        if not debug.is_found_by(error):
            raise
        raise debug.explain(
            error, batches, step=int(progress.step), stage=config.stage, run_dir=run_dir
        ) from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        # A worker that is not the chief goes on after a signal, until the chief has saved.
        if signals.stop is None:
            raise
        message = f"stopped by {signals.stop.name} in {config.stage}, as the chief has stopped"
        raise Stopped(message, signals.stop) from None
    except tf.errors.ResourceExhaustedError as error:
        if any(words in str(error) for words in _DISK_IS_FULL):
            raise UserError(
                f"no space left to save {str(run_dir.root)!r} in: make some, and the same "
                "command continues from the last checkpoint"
            ) from None
        raise UserError(
            f"out of memory at {config.stage}.run.batch_size = {config.batch_size}: lower it, or "
            "the image_px or the width of the encoder, in a new --workdir"
        ) from None


def _scalar_writer(run_dir: RunDir, stage: str) -> tf.summary.SummaryWriter:
    if not run_dir.is_chief:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(run_dir.tensorboard(stage)))
