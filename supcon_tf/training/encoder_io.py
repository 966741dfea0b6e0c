"""Beginning a stage with the weights of parts of a model that was trained before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import keras

from supcon_tf.errors import UserError
from supcon_tf.models import MomentumProjection, model_parts
from supcon_tf.run_dir import RunDir
from supcon_tf.stages.linear import has_heads

Part = Literal["encoder", "projection_head", "classifier"]


def load_parts(model: keras.Model, path: str | Path, parts: Sequence[Part]) -> None:
    """Copies parts' weights, batch statistics included, from a trained model into `model`.

    Where a momentum encoder follows the parts, it begins anew with them.

    Args:
      model: from `models.contrastive_model` or another of pretraining's.
      path: a `.keras` file of such a model or of an encoder alone, or a run's folder: what it
        pretrained, or a classifier alone from its linear stage where there was one.
      parts: which to take.

    Raises:
      UserError: no trained model there.
      UserError: a part that is unknown, that one of the models has not, or of other shapes.
    """
    if isinstance(parts, str) or not set(parts) <= set(get_args(Part)) or not parts:
        raise UserError(f"parts to take over must be some of {get_args(Part)}, got {parts!r}")
    file = _model_file(Path(path).expanduser(), parts)
    loaded = keras.saving.load_model(file, compile=False)
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
                "same settings, or take it out of the parts to take over"
            )
        ours[name].set_weights(given)
    for layer in model.layers:
        if isinstance(layer, MomentumProjection):
            layer.sync()


def _model_file(path: Path, parts: Sequence[Part]) -> Path:
    if not path.is_dir():
        files = [path]
    else:
        # A linear stage trains the classifier, on the encoder as pretraining left it.
        stages = ("linear", "pretrain") if set(parts) <= {"classifier"} else ("pretrain",)
        files = [RunDir(path).model(stage) for stage in stages]
    for file in files:
        if file.is_file():
            return file
    raise UserError(
        f"no trained model at {str(files[-1])!r}: name a finished run's folder or a .keras file"
    )
