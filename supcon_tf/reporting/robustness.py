"""What the pages show of runs that were measured on corrupted images."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from supcon_tf.reporting import robustness_plots
from supcon_tf.reporting.plots import entry_style
from supcon_tf.reporting.scored_split import image_uri
from supcon_tf.reporting.sections import plot_json

if TYPE_CHECKING:
    from supcon_tf.evaluation import Reliability

CLEAN = "clean/0"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run's robustness, from its metrics.json and robustness.json.

    Args:
        folder: of the run.
        results: what metrics.json has of the stage.
        cells: "corruption/severity" -> what was measured of it.
        settings: of the measurement.
        class_names: [C].
    """

    folder: pathlib.Path
    results: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    class_names: list[str]

    @property
    def averaged(self) -> list[str]:
        """The corruptions that means are over."""
        from supcon_tf.evaluation.corruption_error import entering_means

        return entering_means(list(self.results["errors"]))

    def by_severity(self, measure: str) -> dict[int, np.ndarray]:
        """Severity -> the values of the averaged corruptions; 0 is clean."""
        values = {0: np.array([self.cells[CLEAN][measure]])}
        for severity in self.results["severities"]:
            cells = [self.cells[f"{name}/{severity}"] for name in self.averaged]
            values[severity] = np.array([cell[measure] for cell in cells])
        return values

    def reliability(self, severity: int) -> Reliability:
        """The bins of all images at one severity, 0 for clean ones."""
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


def read_measured(folder: pathlib.Path) -> Measured | None:
    """What a run's folder has; None where it has not been measured to the end."""
    files = [folder / name for name in ("metrics.json", "robustness.json")]
    if not all(file.is_file() for file in files):
        return None
    metrics, record = (json.loads(file.read_text("utf-8")) for file in files)
    results = metrics.get("robustness", {})
    wanted = [
        f"{corruption}/{severity}"
        for corruption in results.get("errors", ())
        for severity in results["severities"]
    ]
    # A second measurement with other settings may have begun.
    if not wanted or not {CLEAN, *wanted} <= record["cells"].keys():
        return None
    return Measured(folder, results, record["cells"], record["settings"], record["class_names"])


def robustness(runs: Sequence[Measured]) -> dict[str, Any]:
    """The section of one run, or of several measured on the same images."""
    first = runs[0]
    names = _names(runs)
    shown = dict(zip(names, runs, strict=True))
    severities = [0, *first.results["severities"]]
    accuracies = {
        name: {severity: 1 - values for severity, values in run.by_severity("error").items()}
        for name, run in shown.items()
    }
    calibration = {name: run.by_severity("calibration_error") for name, run in shown.items()}
    bars, of_baseline = _bars(shown)
    return {
        "runs": [{"name": name, "style": entry_style(n)} for n, name in enumerate(names)],
        "rows": [_row(name, run) for name, run in shown.items()],
        "averaged": len(first.averaged),
        "num_images": first.settings["num_images"],
        "corrupted": first.settings["corrupted"],
        "accuracy": plot_json(
            robustness_plots.severity_figure(accuracies, label="top-1 accuracy", percent=True),
            "accuracy-by-severity",
        ),
        "accuracy_alt": " ".join(
            f"{name}: {values[0].mean():.1%} clean, "
            f"{values[severities[-1]].mean():.1%} at severity {severities[-1]}."
            for name, values in accuracies.items()
        ),
        "calibration": plot_json(
            robustness_plots.severity_figure(
                calibration, label="expected calibration error", percent=False
            ),
            "calibration-by-severity",
        ),
        "bars": bars,
        "baseline": of_baseline,
        "reliability": [
            {
                "name": name,
                "plot": plot_json(
                    robustness_plots.reliability_figure(
                        {severity: run.reliability(severity) for severity in severities}
                    ),
                    f"reliability-{number}",
                ),
            }
            for number, (name, run) in enumerate(shown.items())
        ],
        "severities": [
            {
                "name": f"severity {severity}" if severity else "clean",
                "style": robustness_plots.severity_style(severity),
            }
            for severity in severities
        ],
        "examples": _examples(shown, severities),
    }


def _names(runs: Sequence[Measured]) -> list[str]:
    """The folders' names, or their whole paths where two have the same."""
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run.folder) for run in runs]


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


def _bars(shown: dict[str, Measured]) -> tuple[dict[str, Any], str | None]:
    """Corruption errors where all runs have them of one baseline, and plain errors otherwise."""
    baselines = {run.results.get("baseline") for run in shown.values()}
    baseline = baselines.pop() if len(baselines) == 1 else None
    if baseline:
        values = {name: run.results["corruption_errors"] for name, run in shown.items()}
        label = "error in percent of the baseline's"
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


def _examples(shown: dict[str, Measured], severities: Sequence[int]) -> list[dict[str, Any]]:
    """A row per corruption, in it a picture per severity with what each run said."""
    first = next(iter(shown.values()))
    rows = []
    for corruption in first.results["errors"]:
        columns = []
        for severity in severities:
            cell = f"{corruption}/{severity}" if severity else CLEAN
            answers = [(name, run.cells[cell]["example"]) for name, run in shown.items()]
            columns.append(
                {
                    "uri": _picture(first.folder, cell),
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


def _picture(folder: pathlib.Path, cell: str) -> str:
    """The cell's example as a data URI."""
    from PIL import Image

    with Image.open(folder / "robustness" / f"{cell.replace('/', '_')}.png") as image:
        return image_uri(np.asarray(image.convert("RGB")))
