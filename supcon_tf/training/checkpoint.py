"""The state that a killed stage resumes from: step, weights, optimizer and curve."""

import math
from typing import Any

import keras
import tensorflow as tf

from supcon_tf.run_dir import RunDir


class Progress:
    """The step, checkpoints and curve of a stage, restored from its run directory.

    A checkpoint holds the step, all variables of the model and all of the optimizer; any batch is
    a function of seed and step. The curve is a file of its own.

    Args:
      model: the compiled model.
      run_dir: the run directory.
      stage: the stage's name.
      checkpoints_to_keep: number of recent checkpoints to keep.
    """

    def __init__(self, model: keras.Model, run_dir: RunDir, stage: str, checkpoints_to_keep: int):
        optimizer = model.optimizer
        if not optimizer.built:
            # The wrapper that Keras puts around a float16 model's optimizer holds the loss scale.
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        # Not optimizer.iterations: loss scaling skips steps.
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._run_dir, self._stage = run_dir, stage
        self._checkpoint = tf.train.Checkpoint(
            step=self.step,
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in optimizer.variables],
        )
        directory = run_dir.checkpoints(stage)
        manager = tf.train.CheckpointManager
        self._last = manager(self._checkpoint, directory / "last", checkpoints_to_keep)
        self._best = manager(self._checkpoint, directory / "best", max_to_keep=1)
        if self._last.latest_checkpoint:
            self._checkpoint.restore(self._last.latest_checkpoint).assert_consumed()
            print(f"{stage}: continuing from step {int(self.step)}")
        self.curve = [record for record in run_dir.curve(stage) if record["step"] <= int(self.step)]

    def save(self) -> None:
        """Saves a checkpoint."""
        if self._run_dir.is_chief:
            self._last.save(checkpoint_number=int(self.step))

    def end_epoch(self, record: dict[str, Any], *, best_by: str | None) -> None:
        """Adds the record of an epoch to the curve and saves.

        Args:
          record: measures of the epoch, with "step".
          best_by: name of the measure that selects the best epoch; None keeps no best epoch.
        """
        if best_by is not None:
            # Epochs before the validation split was added do not have this measure.
            before = (other.get(best_by, -math.inf) for other in self.curve)
            if all(record[best_by] > value for value in before):
                self._best.save(checkpoint_number=int(self.step))
        # The curve first: a restart drops records that are newer than the checkpoint.
        self.curve.append(record)
        self._run_dir.set_curve(self._stage, self.curve)
        self.save()

    def restore_best(self) -> None:
        """Restores the weights of the best epoch."""
        self._checkpoint.restore(self._best.latest_checkpoint).assert_consumed()
