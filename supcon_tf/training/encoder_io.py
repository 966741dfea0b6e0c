"""Loading encoders, and parts of trained models."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.data.preprocessing import Normalization
from supcon_tf.errors import UserError
from supcon_tf.files import expanded, replacing
from supcon_tf.models import L2Normalization, MomentumProjection, embedding_model, model_parts
from supcon_tf.models.encoders.keras_file import (
    check_input_scale,
    has_heads,
    load_keras_model,
    unfreeze,
)
from supcon_tf.run_dir import RunDir

Part = Literal["encoder", "projection_head", "classifier"]


def encoder_path(
    encoder: str | keras.Model | None,
    run_dir: RunDir,
    *,
    stage: str,
    image_shape: tuple[int, int, int],
    strategy: tf.distribute.Strategy,
) -> str | Path:
    """Where the encoder of a stage can be loaded; the chief saves one that is given as an object.

    A resumed stage loads the encoder that it started with.

    Args:
      encoder: the stage's argument.
      run_dir: the run directory.
      stage: the stage's name.
      image_shape: (height, width, channels) of the images, for a model without an input.
      strategy: its workers wait for the chief.

    Raises:
      UserError: the encoder is something else, or a model that cannot be saved.
    """
    if encoder is None:
        return run_dir.root
    if isinstance(encoder, str | Path):
        return encoder
    if not isinstance(encoder, keras.Model):
        raise UserError(
            f"{stage}.run.encoder must be a Keras model, such as @models.pretrained(), a path or "
            f"None, got {encoder!r}"
        )
    file = run_dir.given_encoder(stage)
    if run_dir.is_chief and not (file.exists() and run_dir.checkpoints(stage).exists()):
        model = encoder
        if not getattr(encoder, "inputs", None):  # A Sequential or a class that was not called yet.
            images = keras.Input(image_shape, name="images")
            model = keras.Model(images, encoder(images))
        if not (file.exists() and _is_same(load_keras_model(file), model)):
            with replacing(file) as partial:
                model.save(partial)
    distribution.wait_for_workers(strategy)
    return file


def _is_same(model: keras.Model, other: keras.Model) -> bool:
    """Whether two models have the same layers and weights: the date in a file is no difference."""
    return model.to_json() == other.to_json() and all(
        map(np.array_equal, model.get_weights(), other.get_weights())
    )


def encoder_file(path: str | Path) -> Path:
    """The `.keras` file at a path, or the pretrained model of the run directory there.

    Raises:
      UserError: no such file, or a directory without a pretrained model.
    """
    file = expanded(path)
    if file.is_dir():
        file = RunDir(file).model("pretrain")
    if not file.is_file():
        raise UserError(
            f'no encoder at {str(file)!r}: add "pretrain" to experiment.run.stages, or set '
            "linear.run.encoder (or finetune.run.encoder) to a run directory, a .keras "
            "file or @models.pretrained()"
        )
    return file


def encoder_digest(path: str | Path) -> str:
    """Identifies the layers and weights of the encoder at a path, as in `encoder_file`.

    Raises:
      UserError: as in `encoder_file`.
    """
    file = encoder_file(path)
    if not zipfile.is_zipfile(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    # A .keras file also has the date when it was saved.
    with zipfile.ZipFile(file) as archive:
        parts = [(each.filename, each.CRC) for each in archive.infolist()]
    parts = sorted(part for part in parts if part[0] != "metadata.json")
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def load_encoder(path: str | Path, *, image_shape: tuple[int, int, int]) -> keras.Model:
    """Loads the encoder of a trained model, normalisation of the embedding included.

    Args:
      path: a run directory, or a `.keras` file of a model of this package or of any Keras model
        from images to vectors.
      image_shape: (height, width, channels) of the images.

    Raises:
      UserError: as in `encoder_file`, or a model that does not map such images to vectors.
    """
    file = encoder_file(path)
    model = load_keras_model(file)
    encoder = embedding_model(model) if has_heads(model) else model
    if encoder is not model:
        unfreeze(encoder)
    check_input_scale(encoder, f"the encoder in {str(file)!r}")
    if len(encoder.inputs) != 1 or len(encoder.outputs) != 1:
        raise UserError(
            f"the encoder in {str(file)!r} must have one input and one output, got "
            f"{len(encoder.inputs)} and {len(encoder.outputs)}"
        )
    wanted = encoder.input_shape[1:]
    if len(wanted) != 3:
        raise UserError(
            f"the encoder in {str(file)!r} must take images [height, width, channels], it takes "
            f"{wanted}"
        )
    if len(encoder.output_shape) != 2:
        raise UserError(
            f"the encoder in {str(file)!r} must give vectors [B, D], it gives "
            f"{encoder.output_shape}: end it with a global pooling layer"
        )
    if wanted[2] not in (None, image_shape[2]):
        raise UserError(
            f"the encoder in {str(file)!r} takes images of {wanted[2]} channels, these have "
            f"{image_shape[2]}"
        )
    if any(size not in (None, given) for size, given in zip(wanted, image_shape, strict=True)):
        raise UserError(
            f"the encoder in {str(file)!r} takes images {wanted}, got {image_shape}: set "
            f"views.Preprocessing.image_px = {wanted[0]}"
        )
    return encoder


def load_parts(model: keras.Model, path: str | Path, parts: Sequence[Part]) -> None:
    """Copies the weights of parts of a trained model, batch statistics included, into `model`.

    A momentum encoder is set to the new weights.

    Args:
      model: from `models.contrastive_model` or another model of the pretraining stage.
      path: a `.keras` file of such a model or of an encoder alone, or a run directory. From a run
        directory the pretrained model is loaded; for a classifier alone, the linear stage's model
        if there is one.
      parts: the parts to load.

    Raises:
      UserError: no trained model there, or a part that is unknown, missing or of other shapes.
    """
    if isinstance(parts, str) or not set(parts) <= set(get_args(Part)) or not parts:
        raise UserError(f"parts to load must be some of {get_args(Part)}, got {parts!r}")
    file = _model_file(expanded(path), parts)
    loaded = load_keras_model(file)
    theirs = model_parts(loaded) if has_heads(loaded) else {"encoder": loaded}
    ours = model_parts(model)
    for name in parts:
        for where, known in ((f"the model in {str(file)!r}", theirs), ("this model", ours)):
            if name not in known:
                raise UserError(f"{where} has no {name}: it has {', '.join(known)}")
        given, wanted = theirs[name].get_weights(), ours[name].get_weights()
        if [weight.shape for weight in given] != [weight.shape for weight in wanted]:
            raise UserError(
                f"the {name} in {str(file)!r} has other shapes than this model's: give both the "
                "same settings, or do not load this part"
            )
        if name == "classifier" and _normalizes(theirs[name]) != _normalizes(ours[name]):
            raise UserError(
                f"either the classifier in {str(file)!r} or this model's scales embeddings to "
                "unit length: set classification_head = @models.normalizing_head for both"
            )
        ours[name].set_weights(given)
    for layer in model.layers:
        if isinstance(layer, MomentumProjection):
            layer.sync()


def _normalizes(classifier: keras.Model) -> bool:
    return any(isinstance(layer, L2Normalization) for layer in getattr(classifier, "layers", ()))


def pretraining_normalization(encoder: str | Path) -> Normalization:
    """The constants that were measured when an encoder was trained.

    Raises:
      UserError: nothing was measured for it.
    """
    constants = RunDir(expanded(encoder)).normalization()
    if constants is None:
        raise UserError(
            f'normalization = "measure" would differ from what the encoder {str(encoder)!r} was '
            "trained with: set views.Preprocessing.normalization to its constants, or to None"
        )
    return constants


def _model_file(path: Path, parts: Sequence[Part]) -> Path:
    if path.is_dir():
        # A linear stage trains the classifier and leaves the encoder unchanged.
        stages = ("linear", "pretrain") if set(parts) <= {"classifier"} else ("pretrain",)
        files = [RunDir(path).model(stage) for stage in stages]
    else:
        files = [path]
    for file in files:
        if file.is_file():
            return file
    raise UserError(
        f"no trained model at {str(files[-1])!r}: name a finished run's directory or a .keras file"
    )
