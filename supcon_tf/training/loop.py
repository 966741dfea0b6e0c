"""The loop that training stages share: fit, validate, record, save, go on after a kill."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.callbacks import CountSteps, Epochs, SaveEvery, StopWhenNotFinite

# How many images one input pipeline is made for: it holds their order, 8 bytes each.
IMAGES_OF_A_PIPELINE = 2**20
# TensorFlow has one kind of error for them and for too little memory.
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded")


def train(
    model: keras.Model,
    batches: Callable[[int, int], tf.data.Dataset | tf.distribute.DistributedDataset],
    *,
    folder: RunDir,
    stage: str,
    epochs: int,
    batch_size: int,
    num_examples: int,
    validation_accuracy: Callable[[], float] | None = None,
    accuracy_name: str = "accuracy",
    checkpoints_to_keep: int = 3,
    after_epoch: Callable[[int], dict[str, float]] | None = None,
    one_fit: bool = True,
    checkpoint_minutes: float = 10.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a compiled model, from its last checkpoint if there is one.

    An epoch is num_examples / batch_size steps, which need not be whole: epoch e ends after
    int(e * num_examples / batch_size) steps.

    Args:
      model: compiled.
      batches: (start, stop) -> the batches of those steps, as the model takes them.
      folder: where checkpoints, curves and TensorBoard scalars go.
      stage: the name of the stage.
      epochs: passes over the training images in all.
      batch_size: images per step, over all replicas.
      num_examples: training images.
      validation_accuracy: measures the model after each epoch; the weights of the best epoch are
        in the model at the end. None keeps the last ones.
      accuracy_name: what it is, after "validation_" in the records.
      checkpoints_to_keep: the last so many.
      after_epoch: takes the number of an epoch that ended; what it returns joins its record.
      checkpoint_minutes: saves also within an epoch that takes longer.
      one_fit: whether `fit` may be called once for several epochs, which it is if an execution of
        the model is one step; not where batches change their shape, or cannot be numbered ahead.
      callbacks: more of them for `fit`, to which all its epochs are one.

    Raises:
      UserError: a loss that is not finite, or no memory for a batch.
      OSError: no space for a checkpoint.
      UserError: `fit` ended before its last step.
    """
    optimizer = model.optimizer
    if not optimizer.built:
        # What Keras puts around the optimizer of a float16 model holds the scale of its loss.
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)
    # Not the optimizer's count, in which steps are missing that loss scaling passed over.
    step = tf.Variable(0, trainable=False, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(
        step=step,
        model=[variable.value for variable in model.variables],
        optimizer=[variable.value for variable in optimizer.variables],
    )
    directory = folder.checkpoints(stage)
    last = tf.train.CheckpointManager(checkpoint, directory / "last", checkpoints_to_keep)
    best = tf.train.CheckpointManager(checkpoint, directory / "best", max_to_keep=1)
    if last.latest_checkpoint:
        checkpoint.restore(last.latest_checkpoint).assert_consumed()
        print(f"{stage}: going on from step {int(step)}")
    curve = [record for record in folder.curve(stage) if record["step"] <= int(step)]

    def save() -> None:
        if folder.is_chief:
            last.save(checkpoint_number=int(step))

    save_within = SaveEvery(minutes=checkpoint_minutes, save=save)
    most = IMAGES_OF_A_PIPELINE // batch_size if one_fit and model.steps_per_execution == 1 else 0
    epoch_of: dict[int, int] = {}
    for epoch in range(1, epochs + 1):
        epoch_of.setdefault(epoch * num_examples // batch_size, epoch)
    titles = {end: f"{stage} epoch {epoch}/{epochs}" for end, epoch in epoch_of.items()}

    def end_epoch(end: int, found: dict[str, float], seconds: float, speed: float) -> None:
        if not folder.is_chief:
            return
        record = {
            "epoch": epoch_of[end],
            "step": end,
            **found,
            "learning_rate": float(optimizer.learning_rate),
            "seconds": seconds,
            "images_per_second": speed,
        }
        if validation_accuracy is not None:
            name = f"validation_{accuracy_name}"
            record[name] = validation_accuracy()
            # Without one are records from before there were images to choose by.
            if all(record[name] > at.get(name, -math.inf) for at in curve):
                best.save(checkpoint_number=end)
        record |= {} if after_epoch is None else after_epoch(epoch_of[end])
        # The curve first: what it has beyond the checkpoint is cut off after a kill.
        curve.append(record)
        folder.set_curve(stage, curve)
        save()
        save_within.restart()
        _show(record, titles[end])

    with _scalar_writer(folder, stage).as_default():
        while ahead := [end for end in epoch_of if end > int(step)]:
            start = int(step)
            of_fit = [ahead[0], *(end for end in ahead[1:] if end - start <= most)]
            try:
                model.fit(
                    batches(start, of_fit[-1]),
                    steps_per_epoch=of_fit[-1] - start,
                    shuffle=False,
                    verbose=0,
                    callbacks=[
                        CountSteps(step),
                        StopWhenNotFinite(step, stage=stage),
                        *callbacks,
                        # Before what saves within epochs: what is saved as over has its record.
                        Epochs(
                            step,
                            ends={end: titles[end] for end in of_fit},
                            batch_size=batch_size,
                            on_end=end_epoch,
                        ),
                        save_within,
                    ],
                )
            except tf.errors.ResourceExhaustedError as error:
                if any(words in str(error) for words in _DISK_IS_FULL):
                    raise OSError(
                        f"no space left to save {str(folder.root)!r} in: make some, and the same "
                        "command goes on from the last checkpoint"
                    ) from None
                raise UserError(
                    f"out of memory at {stage}.run.batch_size = {batch_size}: lower it, or the "
                    "image_px or the width of the encoder, in a new --workdir"
                ) from None
            # Keras takes what an iterator raises at its end, also one that is not its own, for it.
            over = curve[-1:] if folder.is_chief else [{"step": int(step)}]
            if not over or over[0]["step"] != of_fit[-1]:
                raise UserError(
                    f"{stage} ended after step {int(step)} of {of_fit[-1]}: its input was too "
                    "short, or a callback stopped it"
                )
    if validation_accuracy is not None and folder.is_chief:
        checkpoint.restore(best.latest_checkpoint).assert_consumed()


def _scalar_writer(folder: RunDir, stage: str) -> tf.summary.SummaryWriter:
    if not folder.is_chief:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(folder.tensorboard(stage)))


def _show(record: dict[str, float], description: str) -> None:
    """One line for people, the scalars for TensorBoard."""
    for name, value in record.items():
        if name not in ("epoch", "step"):
            tf.summary.scalar(name, value, step=int(record["step"]))
    shown = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if name in ("loss", "accuracy") or name.startswith("validation_")
    ]
    print(
        f"{description}: {', '.join(shown)}, {record['images_per_second']:,.0f} images/s",
        flush=True,
    )
