"""A run directory: the names of its files, and its small files."""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf import run_lock
from supcon_tf.errors import UserError
from supcon_tf.files import replacing
from supcon_tf.json_files import read_json, write_checked_json

# In an export with an unknown score: its threshold, and the index that it is from.
CALIBRATION_FILE = "calibration.json"


@dataclasses.dataclass(frozen=True)
class RunDir:
    """The paths and small files of a run.

    Args:
      root: the directory given as --workdir.
      is_chief: False for a worker that only reads what the chief writes.
      next_stages: the stages that come after the current one.
      keep_test_split: whether the images may have changed, see `training.run_data.run_images`.
      metrics_only: whether the run leaves out pictures, export and report.
    """

    root: Path
    is_chief: bool = True
    next_stages: tuple[str, ...] = ()
    keep_test_split: bool = False
    metrics_only: bool = False

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Locks the directory, which must exist, until the block ends; only the chief does.

        Raises:
          UserError: another process writes to this directory.
        """
        return run_lock.hold(self.root / "run.lock") if self.is_chief else contextlib.nullcontext()

    @property
    def config(self) -> Path:
        """The resolved gin configuration."""
        return self.root / "config.gin"

    @property
    def evaluation_config(self) -> Path:
        """The resolved gin configuration of the last robustness evaluation."""
        return self.root / "evaluate.gin"

    @property
    def metrics_file(self) -> Path:
        """The results of the finished stages."""
        return self.root / "metrics.json"

    @property
    def curves_file(self) -> Path:
        """One record per epoch and stage."""
        return self.root / "curves.json"

    @property
    def encoders_file(self) -> Path:
        """What the initial encoder of each stage is, and its accuracies before training."""
        return self.root / "encoders.json"

    @property
    def normalization_file(self) -> Path:
        """The measured means and standard deviations of the training images."""
        return self.root / "normalization.json"

    @property
    def old_normalization_file(self) -> Path:
        """The same in a run directory of version 0.1."""
        return self.root / "whitening.json"

    @property
    def scored_split(self) -> Path:
        """Embeddings, labels, probabilities and thumbnails of the test split, for the report."""
        return self.root / "test_split.npz"

    @property
    def old_scored_split(self) -> Path:
        """The name of `scored_split` before version 0.2.0."""
        return self.root / "held_out.npz"

    @property
    def rehearsal(self) -> Path:
        """A directory for a moment, before the first step of a stage."""
        return self.root / ".rehearsal"

    def debug_batch(self, stage: str, step: int) -> Path:
        """The batch of a step in which a NaN or infinity appeared, with train --debug."""
        return self.root / f"debug_{stage}_{step}.npz"

    @property
    def view_sheet(self) -> Path:
        """A picture of augmented views."""
        return self.root / "views.png"

    @property
    def report(self) -> Path:
        """The report, one file that opens offline."""
        return self.root / "report.html"

    @property
    def comparison(self) -> Path:
        """The page that compares this run with others."""
        return self.root / "compare.html"

    @property
    def features(self) -> Path:
        """The cached features of a frozen encoder."""
        return self.root / "features"

    @property
    def data(self) -> Path:
        """The paths, labels and splits of the images of each stage."""
        return self.root / "data"

    @property
    def export(self) -> Path:
        """The SavedModel."""
        return self.root / "export"

    @property
    def robustness_cells(self) -> Path:
        """The measures of each corruption and severity."""
        return self.root / "robustness.json"

    @property
    def next_robustness_cells(self) -> Path:
        """The same while they are measured again with other settings."""
        return self.root / "robustness_next.json"

    @property
    def robustness_examples(self) -> Path:
        """A picture of the first image of each corruption and severity."""
        return self.root / "robustness"

    @property
    def next_robustness_examples(self) -> Path:
        """The same while they are made again with other settings."""
        return self.root / "robustness_next"

    def checkpoints(self, stage: str) -> Path:
        """The checkpoints of a stage."""
        return self.root / "checkpoints" / stage

    def model(self, stage: str, epoch: int | None = None) -> Path:
        """The trained model of a stage, or its snapshot after an epoch."""
        name = "model.keras" if epoch is None else f"model_{epoch:04d}.keras"
        return self.checkpoints(stage) / name

    def given_encoder(self, stage: str) -> Path:
        """The untrained encoder of a stage that was given as an object."""
        return self.root / f"encoder_{stage}.keras"

    def tensorboard(self, stage: str) -> Path:
        """The TensorBoard scalars of a stage."""
        return self.root / "tensorboard" / stage

    def robustness_example(self, corruption: str, severity: int) -> Path:
        """The picture of one corruption and severity."""
        return self.robustness_examples / f"{corruption}_{severity}.png"

    def started_stages(self) -> set[str]:
        """The stages that have left a checkpoint or results."""
        checkpoints = self.root / "checkpoints"
        saved = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
        return {*saved, *self.metrics()}

    def remove_partial_files(self) -> None:
        """Removes what a run with other settings left before its first checkpoint."""
        for file in (
            self.view_sheet,
            self.curves_file,
            self.encoders_file,
            self.scored_split,
            self.normalization_file,
            self.old_normalization_file,
            *self.root.glob(self.given_encoder("*").name),
        ):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)

    def metrics(self) -> dict[str, Any]:
        """The results of the finished stages."""
        results = read_json(self.metrics_file)
        if not all(isinstance(values, dict) for values in results.values()):
            raise UserError(
                f"{str(self.metrics_file)!r} is damaged, it must hold one object per stage: remove "
                "it, and the same command makes it again"
            )
        return results

    def set_metrics(self, stage: str, results: dict[str, Any]) -> None:
        """Adds the results of a finished stage."""
        self._write(self.metrics_file, {**self.metrics(), stage: results})

    def remove_metrics(self, stage: str) -> None:
        """Removes the results of a stage, if there are any."""
        results = self.metrics()
        if results.pop(stage, None) is not None:
            self._write(self.metrics_file, results)

    def shifts(self) -> dict[str, dict[str, Any]]:
        """The results of the shifts stage: set -> its measures."""
        sets = self.metrics().get("shifts", {}).get("sets", {})
        is_intact = isinstance(sets, dict) and all(
            isinstance(results, dict) and isinstance(results.get("settings"), dict)
            for results in sets.values()
        )
        if not is_intact:
            raise UserError(
                f'{str(self.metrics_file)!r} is damaged, "shifts" must hold one object per set: '
                "remove it there, and python -m supcon_tf.evaluate makes it again"
            )
        return sets

    def curve(self, stage: str) -> list[dict[str, float]]:
        """One record per finished epoch of a stage."""
        records = read_json(self.curves_file).get(stage, [])
        if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
            raise UserError(
                f"{str(self.curves_file)!r} is damaged, {stage!r} must be a list of objects: "
                "remove it, and the same command makes it again"
            )
        return records

    def set_curve(self, stage: str, records: list[dict[str, float]]) -> None:
        """Replaces the records of a stage."""
        self._write(self.curves_file, {**read_json(self.curves_file), stage: records})

    def encoders(self) -> dict[str, Any]:
        """Stage -> what its initial encoder is."""
        return read_json(self.encoders_file)

    def set_encoder(self, stage: str, record: dict[str, Any]) -> None:
        """Replaces the record of a stage."""
        self._write(self.encoders_file, {**self.encoders(), stage: record})

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The measured means and standard deviations, if they were measured."""
        constants = read_json(self.normalization_file) or read_json(self.old_normalization_file)
        if not constants:
            return None
        try:
            means, deviations = (
                tuple(map(float, constants[name])) for name in ("means", "deviations")
            )
            return means, deviations
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{str(self.normalization_file)!r} is damaged, it must have means and deviations: "
                "remove it, and the same command makes it again"
            ) from None

    def set_normalization(self, means: Sequence[float], deviations: Sequence[float]) -> None:
        """Keeps them for the later stages."""
        constants = {"means": list(means), "deviations": list(deviations)}
        self._write(self.normalization_file, constants)

    def save_scored_split(self, **arrays: np.ndarray) -> None:
        """Writes `scored_split`."""
        with replacing(self.scored_split) as partial:
            np.savez_compressed(partial, allow_pickle=False, **arrays)

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        if self.is_chief:
            write_checked_json(path, content)
