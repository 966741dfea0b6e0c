"""Linear evaluation: a classifier on the embedding of an encoder that stays as it is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf import models
from supcon_tf.data.pipeline import Batches, training_batches
from supcon_tf.data.preprocessing import Augmentation, Preprocessing
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.objective import class_loss
from supcon_tf.training.stage import run_stage


def run(
    folder: RunDir,
    *,
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule],
    epochs: int,
    batch_size: int,
    loss: keras.losses.Loss | None = None,
    encoder: str | None = None,
    zero_init: bool = False,
    cache_features: bool = False,
    weight_decay: float = 0.0,
    seed: int = 0,
    jit_compile: bool = False,
    checkpoints_to_keep: int = 3,
    batches: Callable[..., Batches] = training_batches,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """Trains the classifier on one augmented view of each image; the encoder is in inference mode.

    Args:
      folder: the run's.
      source, preprocessing, augmentation, optimizer, schedule, epochs, batch_size, seed,
        jit_compile, checkpoints_to_keep, batches, strategy: as in `pretrain.run`.
      loss: of the class scores [B, C]; None is cross-entropy, binary where images may have several
        labels.
      encoder: a run's folder, or a `.keras` file of a model of this package or of any Keras model
        from images to vectors; None is the one that this run pretrained.
      zero_init: start the classifier's kernel from zeros.
      cache_features: train on the features of the evaluation views instead, which are computed
        once and kept in the run's folder: no crops and no augmentation, and an epoch takes as
        long as the classifier alone. They take 4 bytes per image and number of the embedding, in
        memory too.
      weight_decay: of the classifier.

    Raises:
      UserError: no encoder.
      UserError: as in `stage.run_stage` and `class_loss`.
    """
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("float32")
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = models.classification_model(
            load_encoder(encoder or folder.root, image_shape=preprocessing.image_shape),
            image_shape=preprocessing.image_shape,
            num_classes=source.num_classes,
            train_encoder=False,
            zero_init=zero_init,
        )
    run_stage(
        folder,
        "linear",
        model,
        losses={"logits": class_loss(loss, source)},
        decayed=("classifier",),
        source=source,
        preprocessing=with_pretraining_normalization(preprocessing, encoder),
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
        frozen_encoder=encoder_file(encoder or folder.root) if cache_features else None,
    )


def encoder_file(path: str | Path) -> Path:
    """The `.keras` file at a path, or the pretrained model's of the run's folder there.

    Raises:
      UserError: no such file, or a folder without a pretrained model.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = RunDir(file).model("pretrain")
    if not file.is_file():
        raise UserError(
            f'no encoder at {str(file)!r}: add "pretrain" to experiment.run.stages, or set '
            "linear.run.encoder (or finetune.run.encoder) to a run's folder or a .keras file"
        )
    return file


def load_encoder(path: str | Path, *, image_shape: tuple[int, int, int]) -> keras.Model:
    """What a trained model's heads stand on, normalisation of the embedding included.

    Args:
      path: a run's folder, or a `.keras` file.
      image_shape: what the encoder will be given.

    Raises:
      UserError: as in `encoder_file`.
      UserError: an encoder that takes another shape.
    """
    file = encoder_file(path)
    model = keras.saving.load_model(file, compile=False)
    encoder = models.embedding_model(model) if has_heads(model) else model
    if any(
        size not in (None, wanted)
        for size, wanted in zip(encoder.input_shape[1:], image_shape, strict=True)
    ):
        raise UserError(
            f"the encoder in {str(file)!r} takes images {encoder.input_shape[1:]}, got "
            f"{image_shape}: set views.Preprocessing.image_px = {encoder.input_shape[1]}"
        )
    return encoder


def has_heads(model: keras.Model) -> bool:
    """Whether a model is one of `models`, and not an encoder of another origin."""
    return any(
        layer.name == "embedding" and isinstance(layer, keras.Model) for layer in model.layers
    )


def with_pretraining_normalization(
    preprocessing: Preprocessing, encoder: str | Path | None
) -> Preprocessing:
    """Uses the normalization that was measured when the encoder was trained elsewhere.

    Raises:
      UserError: normalization = "measure", but nothing was measured for this encoder.
    """
    if preprocessing.normalization != "measure" or encoder is None:
        return preprocessing
    constants = RunDir(Path(encoder).expanduser()).normalization()
    if constants is None:
        raise UserError(
            f'normalization = "measure" would not be what the encoder {str(encoder)!r} was trained '
            "with: set views.Preprocessing.normalization to its numbers, or to None"
        )
    return dataclasses.replace(preprocessing, normalization=constants)
