"""Tries before the first step what a stage does at its end."""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import serving_model
from supcon_tf.training.results import EpochMeasures


def rehearse(measures: EpochMeasures) -> None:
    """Saves, loads and serves the untrained model, unless the stage has started before.

    A worker that is not the chief does nothing.

    Raises:
      UserError: one of these fails.
      OSError: the run directory cannot be written to.
    """
    run_dir, network, stage = measures.run_dir, measures.network, measures.config.stage
    if not run_dir.is_chief or run_dir.checkpoints(stage).exists():
        return
    run_dir.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rehearsal", dir=run_dir.root) as folder:
        file = Path(folder) / "model.keras"
        try:
            network.save(file)
            keras.saving.load_model(file, compile=False)
        except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the model of {stage} cannot be saved and loaded, so that no later stage could "
                f"use it ({reason}): give its own classes a get_config and "
                "register them by keras.saving.register_keras_serializable"
            ) from error
    image_shape = measures.data.preprocessing.image_shape
    serving = serving_model(network, multi_label=measures.data.source.is_multi_label)
    outputs = serving(tf.zeros([1, *image_shape]), training=False)
    wrong = [name for name, values in outputs.items() if values.shape.rank != 2]
    if wrong:
        got = outputs[wrong[0]].shape
        raise UserError(f"the {wrong[0]} of a served model must be [B, D], got {got}")
