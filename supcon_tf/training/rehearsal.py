"""Tries before the first step what a stage does at its end."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import serving_model
from supcon_tf.training.results import EpochMeasures


def rehearse(measures: EpochMeasures) -> None:
    """Saves, loads and serves the untrained model, unless the stage has started before.

    A worker that is not the chief does nothing, nor does a run of metrics only, as those are short.

    Raises:
      UserError: one of these fails.
      OSError: the run directory cannot be written to.
    """
    run_dir, network, stage = measures.run_dir, measures.network, measures.config.stage
    if not run_dir.is_chief or run_dir.metrics_only or run_dir.checkpoints(stage).exists():
        return
    # A killed process may have left it.
    shutil.rmtree(run_dir.rehearsal, ignore_errors=True)
    run_dir.rehearsal.mkdir(parents=True)
    try:
        _save_and_load(network, run_dir.rehearsal / "model.keras", stage)
    finally:
        shutil.rmtree(run_dir.rehearsal, ignore_errors=True)
    image_shape = measures.data.preprocessing.image_shape
    serving = serving_model(network, multi_label=measures.data.source.is_multi_label)
    serving(tf.zeros([1, *image_shape]), training=False)


def _save_and_load(network: keras.Model, file: Path, stage: str) -> None:
    try:
        network.save(file)
        keras.saving.load_model(file, compile=False)
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the model of {stage} cannot be saved and loaded, so that no later stage could "
            f"use it ({reason}): give its own classes a get_config and register them by "
            "keras.saving.register_keras_serializable"
        ) from error
