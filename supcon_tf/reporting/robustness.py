"""The section of reports and comparisons on corrupted images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.json_files import read_json
from supcon_tf.reporting import robustness_plots
from supcon_tf.reporting.page import as_run_dir
from supcon_tf.reporting.plots import entry_style
from supcon_tf.reporting.scored_split import image_uri
from supcon_tf.reporting.sections import plot_json
from supcon_tf.run_dir import RunDir

if TYPE_CHECKING:
    from supcon_tf.evaluation import Reliability

CLEAN = "clean/0"


@dataclasses.dataclass(frozen=True)
class Measured:
    """The finished robustness stage of a run.

    Args:
        run_dir: the run directory.
        results: the stage's metrics.
        cells: "corruption/severity" -> its measures.
        settings: settings of the measurement.
        class_names: [C].
    """

    run_dir: RunDir
    results: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    class_names: list[str]

    @property
    def averaged(self) -> list[str]:
        """The corruptions that means are taken over."""
        from supcon_tf.evaluation.corruption_error import averaged_corruptions

        return averaged_corruptions(list(self.results["errors"]))

    def by_severity(self, measure: str) -> dict[int, np.ndarray]:
        """Severity -> the measure of each averaged corruption; severity 0 is clean."""
        values = {0: np.array([self.cells[CLEAN][measure]])}
        for severity in self.results["severities"]:
            cells = [self.cells[f"{name}/{severity}"] for name in self.averaged]
            values[severity] = np.array([cell[measure] for cell in cells])
        return values

    def reliability(self, severity: int) -> Reliability:
        """The reliability diagram of all images at one severity, 0 for clean ones."""
        from supcon_tf.evaluation import Reliability

        names = [f"{name}/{severity}" for name in self.averaged] if severity else [CLEAN]
        diagrams = [
            Reliability(
                *(
                    np.array(self.cells[name]["reliability"][key])
                    for key in ("counts", "confidences", "hits")
                )
            )
            for name in names
        ]
        return sum(diagrams[1:], start=diagrams[0])


def read_measured(run: RunDir | str | os.PathLike) -> Measured | None:
    """The robustness results of a run; None if the stage has not finished.

    Raises:
        UserError: a damaged file.
    """
    run_dir = as_run_dir(run)
    files = [run_dir.metrics_file, run_dir.robustness_cells]
    if not all(file.is_file() for file in files):
        return None
    metrics, record = map(read_json, files)
    try:
        results = metrics.get("robustness", {})
        wanted = [
            f"{corruption}/{severity}"
            for corruption in results.get("errors", ())
            for severity in results["severities"]
        ]
        cells, *others = (record[name] for name in ("cells", "settings", "class_names"))
        # Cells are missing if a measurement with other settings has started.
        is_whole = wanted and {CLEAN, *wanted} <= cells.keys()
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(files[1])!r} is damaged, or {str(files[0])!r} ({error!r}): remove the first, "
            "and python -m supcon_tf.evaluate makes it again"
        ) from None
    return Measured(run_dir, results, cells, *others) if is_whole else None


def robustness(runs: Sequence[Measured]) -> dict[str, Any]:
    """The section for one run, or for several that were measured on the same images."""
    first = runs[0]
    names = run_names([run.run_dir for run in runs])
    shown = dict(zip(names, runs, strict=True))
    severities = [0, *first.results["severities"]]
    bars, baseline = _bars(shown)
    return {
        "runs": [{"name": name, "style": entry_style(n)} for n, name in enumerate(names)],
        "rows": [_row(name, run) for name, run in shown.items()],
        "averaged": len(first.averaged),
        "num_images": first.settings["num_images"],
        "corrupted": first.settings["corrupted"],
        **_severity_plots(shown, severities),
        "bars": bars,
        "baseline": baseline,
        "reliability": _reliability_plots(shown, severities),
        "severities": [
            {
                "name": f"severity {severity}" if severity else "clean",
                "style": robustness_plots.severity_style(severity),
            }
            for severity in severities
        ],
        "examples": _examples(shown, severities),
    }


def run_names(runs: Sequence[RunDir]) -> list[str]:
    """The names of the run directories, or their paths if two names are equal."""
    names = [run.root.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.root) for run in runs]


def _severity_plots(shown: Mapping[str, Measured], severities: Sequence[int]) -> dict[str, Any]:
    accuracies = {
        name: {severity: 1 - values for severity, values in run.by_severity("error").items()}
        for name, run in shown.items()
    }
    calibration = {name: run.by_severity("calibration_error") for name, run in shown.items()}
    accuracy_figure = robustness_plots.severity_figure(
        accuracies, label="top-1 accuracy", percent=True
    )
    calibration_figure = robustness_plots.severity_figure(
        calibration, label="expected calibration error", percent=False
    )
    return {
        "accuracy": plot_json(accuracy_figure, "accuracy-by-severity"),
        "accuracy_alt": " ".join(
            f"{name}: {values[0].mean():.1%} clean, "
            f"{values[severities[-1]].mean():.1%} at severity {severities[-1]}."
            for name, values in accuracies.items()
        ),
        "calibration": plot_json(calibration_figure, "calibration-by-severity"),
    }


def _reliability_plots(
    shown: Mapping[str, Measured], severities: Sequence[int]
) -> list[dict[str, Any]]:
    plots = []
    for number, (name, run) in enumerate(shown.items()):
        figure = robustness_plots.reliability_figure(
            {severity: run.reliability(severity) for severity in severities}
        )
        plots.append({"name": name, "plot": plot_json(figure, f"reliability-{number}")})
    return plots


def _row(name: str, run: Measured) -> dict[str, Any]:
    results = run.results
    return {
        "name": name,
        "clean": 1 - results["clean_error"],
        "corrupted": 1 - results["unnormalized_mean_error"],
        "mce": results.get("mce"),
        "relative_mce": results.get("relative_mce"),
        "clean_calibration": results["clean_calibration_error"],
        "calibration": float(np.mean(results["calibration_errors"])),
        "adaptive_calibration": float(np.mean(results["adaptive_calibration_errors"])),
    }


def _bars(shown: Mapping[str, Measured]) -> tuple[dict[str, Any], str | None]:
    """Corruption errors if all runs share a baseline, otherwise errors; and the baseline."""
    baselines = {run.results.get("baseline") for run in shown.values()}
    baseline = baselines.pop() if len(baselines) == 1 else None
    if baseline:
        values = {name: run.results["corruption_errors"] for name, run in shown.items()}
        label = "error in percent of the baseline's error"
    else:
        values = {
            name: {c: float(np.mean(errors)) for c, errors in run.results["errors"].items()}
            for name, run in shown.items()
        }
        label = "error, mean over severities"
    figure = robustness_plots.corruption_figure(
        values, label=label, percent_of_baseline=baseline is not None
    )
    return plot_json(figure, "corruptions"), baseline


def _examples(shown: Mapping[str, Measured], severities: Sequence[int]) -> list[dict[str, Any]]:
    """A row per corruption with a picture per severity and the prediction of each run."""
    first = next(iter(shown.values()))
    rows = []
    for corruption in first.results["errors"]:
        columns = []
        for severity in severities:
            at = (corruption, severity) if severity else ("clean", 0)
            cell = f"{at[0]}/{at[1]}"
            answers = [(name, run.cells[cell]["example"]) for name, run in shown.items()]
            columns.append(
                {
                    "uri": _picture_uri(first.run_dir.robustness_example(*at)),
                    "label": first.class_names[answers[0][1]["label"]],
                    "answers": [
                        {
                            "run": name,
                            "guess": first.class_names[answer["guess"]],
                            "probability": answer["probability"],
                            "right": answer["guess"] == answer["label"],
                        }
                        for name, answer in answers
                    ],
                }
            )
        rows.append({"corruption": corruption.replace("_", " "), "columns": columns})
    return rows


def _picture_uri(path: Path) -> str | None:
    """A picture as a data URI; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image_uri(np.asarray(image.convert("RGB")))
    except OSError:
        return None
