"""The files of a run's folder, which is what a killed run goes on from and a report is made of."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class RunDir:
    """Paths and small files of a run.

    Args:
      root: the folder given as --workdir.
      is_chief: False for a worker that only reads what the chief writes.
    """

    root: Path
    is_chief: bool = True

    def checkpoints(self, stage: str) -> Path:
        """Where a stage keeps its checkpoints."""
        return self.root / "checkpoints" / stage

    def model(self, stage: str, epoch: int | None = None) -> Path:
        """The stage's finished model, or the snapshot after an epoch."""
        name = "model.keras" if epoch is None else f"model_{epoch:04d}.keras"
        return self.checkpoints(stage) / name

    def tensorboard(self, stage: str) -> Path:
        """Where a stage writes its scalars."""
        return self.root / "tensorboard" / stage

    @property
    def view_sheet(self) -> Path:
        """A picture of augmented views."""
        return self.root / "views.png"

    @property
    def features(self) -> Path:
        """Where a frozen encoder's features are kept."""
        return self.root / "features"

    @property
    def export(self) -> Path:
        """The SavedModel."""
        return self.root / "export"

    def robustness_example(self, corruption: str, severity: int) -> Path:
        """A picture of the first image of a cell that the robustness stage measured."""
        return self.root / "robustness" / f"{corruption}_{severity}.png"

    def started_stages(self) -> set[str]:
        """The stages that have left a checkpoint or results."""
        checkpoints = self.root / "checkpoints"
        saved = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
        return {*saved, *self.metrics()}

    def remove_partial_files(self) -> None:
        """What an attempt with other settings, stopped before its first checkpoint, left."""
        for name in ("views.png", "curves.json", "held_out.npz", "normalization.json"):
            (self.root / name).unlink(missing_ok=True)

    def metrics(self) -> dict[str, Any]:
        """The results of the stages that finished."""
        return read_json(self.root / "metrics.json")

    def set_metrics(self, stage: str, results: dict[str, Any]) -> None:
        """Adds a finished stage's results."""
        self._write("metrics.json", {**self.metrics(), stage: results})

    def remove_metrics(self, stage: str) -> None:
        """Removes a finished stage's results, if there are any."""
        results = self.metrics()
        if results.pop(stage, None) is not None:
            self._write("metrics.json", results)

    def curve(self, stage: str) -> list[dict[str, float]]:
        """One record per epoch of a stage."""
        return read_json(self.root / "curves.json").get(stage, [])

    def set_curve(self, stage: str, records: list[dict[str, float]]) -> None:
        """Replaces a stage's records."""
        curves = read_json(self.root / "curves.json")
        self._write("curves.json", {**curves, stage: records})

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The means and deviations that were measured for this run."""
        numbers = read_json(self.root / "normalization.json")
        return (tuple(numbers["means"]), tuple(numbers["deviations"])) if numbers else None

    def set_normalization(self, means: Sequence[float], deviations: Sequence[float]) -> None:
        """Keeps them for the stages to come."""
        numbers = {"means": list(means), "deviations": list(deviations)}
        self._write("normalization.json", numbers)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self.is_chief:
            write_json(self.root / name, content)

    def save_scored_split(self, **arrays: Any) -> None:
        """Embeddings, labels and pictures of the held-out split, for the report."""
        partial = self.root / "held_out.partial.npz"
        np.savez_compressed(partial, allow_pickle=False, **arrays)
        os.replace(partial, self.root / "held_out.npz")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; an empty dict where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: a run killed while writing leaves the file as it was."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)
