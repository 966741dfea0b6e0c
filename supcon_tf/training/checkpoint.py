"""The state that a killed stage resumes from: step, weights, optimizer and curve."""

import itertools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.json_files import read_json
from supcon_tf.run_dir import RunDir
from supcon_tf.training.checkpoint_files import CheckpointFiles


class Progress:
    """The step, checkpoints and curve of a stage, restored from its run directory.

    A checkpoint holds the step, all variables of the model and all of the optimizer, the curve, and
    within an epoch its metrics; any batch is a function of seed and step.

    Args:
      model: the compiled model.
      run_dir: the run directory.
      stage: the stage's name.
      checkpoints_to_keep: number of recent checkpoints to keep.

    Raises:
      UserError: the checkpoints are damaged or missing.

    Attributes:
      step: int64 variable, the number of finished steps.
      curve: one record per finished epoch.
      saved_step: the step of the newest checkpoint.
      seconds: time that the epoch at `step` had taken when it was saved.
    """

    def __init__(self, model: keras.Model, run_dir: RunDir, stage: str, checkpoints_to_keep: int):
        optimizer = model.optimizer
        if not optimizer.built:
            # The wrapper that Keras puts around a float16 model's optimizer holds the loss scale.
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        # Not optimizer.iterations: loss scaling skips steps.
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._model, self._run_dir, self._stage = model, run_dir, stage
        self._checkpoint = tf.train.Checkpoint(
            step=self.step,
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in optimizer.variables],
        )
        # Older versions saved this counter, which TensorFlow makes when it is first read.
        _ = self._checkpoint.save_counter
        directory = run_dir.checkpoints(stage)
        self._last = CheckpointFiles(
            directory / "last",
            checkpoints_to_keep,
            advice=f"remove {str(directory)!r} to run {stage} from its start",
        )
        self._best = CheckpointFiles(
            directory / "best",
            keep=1,
            advice=f"remove {str(directory / 'best')!r} to choose among the later epochs",
        )
        state = self._last.restore(self._checkpoint)
        self.curve = self._restored_curve(state)
        if self.curve:
            self._best.check()
        if state is not None:
            print(f"{stage}: continuing from step {int(self.step)}")
        self.seconds = (state or {}).get("seconds", 0.0)
        self._metrics = (state or {}).get("metrics", [])
        self.saved_step = int(self.step)

    def _restored_curve(self, state: dict[str, Any] | None) -> list[dict[str, float]]:
        """The curve up to the restored step, which also replaces a lost or longer one on disk.

        Raises:
          UserError: a curve without checkpoints.
        """
        restore_curves(self._run_dir)
        recorded = self._run_dir.curve(self._stage)
        if state is None and recorded:
            raise UserError(
                f"{str(self._run_dir.root)!r} has {len(recorded)} epochs of {self._stage}, but no "
                "checkpoints: copy them there, or give another --workdir"
            )
        curve = (state or {}).get("curve", recorded)
        curve = [record for record in curve if record["step"] <= int(self.step)]
        if curve != recorded:
            self._run_dir.set_curve(self._stage, curve)
        return curve

    def save(self, *, seconds: float) -> None:
        """Saves a checkpoint within an epoch, unless this step is saved.

        Args:
          seconds: time that the epoch has taken.
        """
        self._save(seconds=seconds, metrics=[_values(v) for v in self._metric_variables()])

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
                self._best.save(self._checkpoint, int(self.step), {})
        self.curve.append(record)
        # The checkpoint first: it holds the curve, so that every record has its weights.
        self._save(seconds=0.0, metrics=[])
        self._run_dir.set_curve(self._stage, self.curve)

    def build_metrics(self, batches: tf.data.Dataset | tf.distribute.DistributedDataset) -> None:
        """Builds the metrics of an epoch that was interrupted; Keras would in the first step."""
        is_built = len(self._metrics) in (0, len(self._metric_variables()))
        # On several replicas, `fit` builds them before that.
        if not is_built and isinstance(batches, tf.data.Dataset):
            self._model._symbolic_build(data_batch=batches.element_spec)

    def restore_metrics(self) -> None:
        """Continues the metrics of an epoch that was interrupted; Keras has reset them."""
        variables = self._metric_variables()
        if len(self._metrics) == len(variables):
            for variable, values in zip(variables, self._metrics, strict=True):
                for component, value in zip(_components(variable), values, strict=False):
                    component.assign(np.asarray(value, component.dtype.as_numpy_dtype))
        self._metrics, self.seconds = [], 0.0

    def restore_best(self) -> None:
        """Restores the weights of the best epoch."""
        if self._best.restore(self._checkpoint) is None:
            print(f"{self._stage}: no checkpoint of the best epoch, so the last one is used")

    def _save(self, **state: Any) -> None:
        if not self._run_dir.is_chief or self.saved_step == int(self.step):
            return
        if not self._run_dir.root.is_dir():
            raise UserError(f"the run directory {str(self._run_dir.root)!r} is gone")
        self._last.save(self._checkpoint, int(self.step), {"curve": self.curve, **state})
        self.saved_step = int(self.step)

    def _metric_variables(self) -> list[keras.Variable]:
        return [variable for metric in self._model.metrics for variable in metric.variables]


def restore_curves(run_dir: RunDir) -> None:
    """Makes a damaged or lost file of curves again from the checkpoints."""
    file = run_dir.curves_file
    if not run_dir.is_chief:
        return
    try:
        if file.exists():
            read_json(file)
            return
    except UserError:
        print(f"{str(file)!r} is damaged: it is made again from the checkpoints")
        file.unlink()
    for stage in sorted(run_dir.started_stages()):
        files = CheckpointFiles(run_dir.checkpoints(stage) / "last", keep=1)
        for state in itertools.islice(files.states(), 1):
            if state.get("curve"):
                run_dir.set_curve(stage, state["curve"])


def _components(variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """The variable on each replica of this process."""
    return getattr(variable.value, "values", (variable.value,))


def _values(variable: keras.Variable) -> list[Any]:
    return [component.numpy().tolist() for component in _components(variable)]
