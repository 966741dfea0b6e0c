"""The sections of a run's report as values for the template: plots, pictures and text."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from supcon_tf.reporting import plots
from supcon_tf.reporting.scored_split import ScoredSplit, image_uri, most_confused_pairs
from supcon_tf.run_dir import RunDir

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

STAGES = ("pretrain", "linear", "finetune", "robustness", "shifts")
PAIRS = 10
EXAMPLES_PER_PAIR = 4


def in_order(stages: Collection[str]) -> list[str]:
    """Stages in the order they run; unknown ones come last."""
    return sorted(stages, key=(*STAGES, *stages).index)


# Title of a plot -> key of a curve's records -> name of the line.
CURVE_PLOTS = {
    "Loss": {"loss": "training"},
    "Accuracy": {
        "accuracy": "training",
        "validation_accuracy": "validation",
        "knn_top_1": "kNN, test split",
    },
    "Mean average precision": {"validation_mean_average_precision": "validation"},
    "Nearest view": {
        "contrastive_accuracy": "same class",
        "anchors_without_positive": "no positive",
    },
    "Projections": {"alignment": "alignment", "uniformity": "uniformity"},
    "Effective rank": {"effective_rank": "of the projections"},
}
_IN_PERCENT = ("Accuracy", "Mean average precision", "Nearest view")


def curves(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Loss and accuracy plots of each stage; the values themselves for a single epoch."""
    return [
        {
            "stage": stage,
            "plots": _curve_plots(stage, number, stages[stage]) if len(stages[stage]) > 1 else [],
            "values": {
                name: stages[stage][0][name]
                for name in ("loss", "accuracy")
                if len(stages[stage]) == 1 and _finite(stages[stage], name)
            },
            "epochs": len(stages[stage]),
            "without_loss": len(stages[stage]) - len(_finite(stages[stage], "loss")),
        }
        for number, stage in enumerate(in_order(stages))
    ]


def _curve_plots(
    stage: str, number: int, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    shown = []
    for title, names in CURVE_PLOTS.items():
        lines = {key: name for key, name in names.items() if _finite(rows, key)}
        if not lines:
            continue
        figure = plots.curve_figure(rows, keys=list(lines), percent=title in _IN_PERCENT)
        descriptions = [_end_points(rows, key, name) for key, name in lines.items()]
        shown.append(
            {
                "title": title,
                "legend": list(zip(lines.values(), plots.CURVE_STYLES, strict=False)),
                "alt": f"{title} of stage {stage} by epoch. {' '.join(descriptions)}",
                "plot": plot_json(figure, f"{title.lower().replace(' ', '-')}-{number}"),
            }
        )
    return shown


def _finite(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the finite values; JSON may have null for NaN."""
    return [
        (row["epoch"], row[key])
        for row in rows
        if row.get(key) is not None and math.isfinite(row[key])
    ]


def _end_points(rows: Sequence[Mapping[str, Any]], key: str, name: str) -> str:
    """First and last value of a line in words, for screen readers."""
    points = _finite(rows, key)
    (first, start), (last, end) = points[0], points[-1]
    return f"{name.capitalize()}: {start:.3g} at epoch {first:g}, {end:.3g} at epoch {last:g}."


def embedding_map(split: ScoredSplit, points: int) -> dict[str, Any] | None:
    """The map and its legend; None if no embedding is finite."""
    shown = len(plots.map_sample(split, points))
    if not shown:
        return None
    legend = [
        {"entry": entry, "name": split.class_names[label]}
        for entry, label in enumerate(plots.map_classes(split))
    ]
    others = len(split.class_names) - len(legend)
    rest = [f"{others:,} other classes"] if others else []
    if split.class_names and (split.classes < 0).any():
        rest.append("several classes, or none")
    if rest:
        legend.append({"entry": -1, "name": "; ".join(rest)})
    return {
        "plot": plot_json(plots.map_figure(split, points), "map"),
        "legend": [{**item, "style": plots.entry_style(item["entry"])} for item in legend],
        "others": others,
        "coloured": len(split.class_names) - others,
        "multi_label": split.labels.ndim == 2,
        "has_labels": bool(split.class_names),
        "shown": shown,
        "total": len(split.labels),
        "dimensions": split.embeddings.shape[1],
        "predicted": split.predictions is not None,
    }


def confusion(split: ScoredSplit) -> dict[str, Any] | None:
    """The confusion matrix and the most confused pairs; None without predictions."""
    predictions = split.predictions
    if predictions is None:
        return None
    names = split.class_names
    shown = min(len(names), plots.MATRIX_CLASSES)
    pairs = [
        {
            "label": names[pair.label],
            "prediction": names[pair.prediction],
            "count": len(pair.examples),
            "share": pair.share,
            "images": [split.thumbnails[i] for i in pair.examples if i < len(split.thumbnails)][
                :EXAMPLES_PER_PAIR
            ],
        }
        for pair in most_confused_pairs(split.labels, predictions, limit=PAIRS)
    ]
    return {
        "plot": plot_json(plots.confusion_figure(split, predictions), "confusion"),
        # Space for a count in each cell and for the names; cells of at most 80 px.
        "min_width": 80 + shown * (27 if shown <= plots.COUNTED_CLASSES else 14),
        "max_width": 120 + shown * 80,
        "shown": shown,
        "classes": len(names),
        "right": int((predictions == split.labels).sum()),
        "total": len(split.labels),
        "pairs": pairs,
    }


def encoders(run_dir: RunDir) -> list[dict[str, Any]]:
    """The initial encoder of each stage, and the accuracies before and after training."""
    records, results = run_dir.encoders(), run_dir.metrics()
    return [
        {
            "stage": stage,
            **records[stage],
            "comparison": _before_and_after(stage, records, results),
        }
        for stage in in_order(records.keys() & results.keys())
    ]


# Row of the comparison -> key before and after training. A probe may not have converged.
_COMPARED = {
    "kNN": ("frozen_knn_top_1", "knn_top_1"),
    "kNN, mean average precision": (
        "frozen_knn_mean_average_precision",
        "knn_mean_average_precision",
    ),
    "Linear classifier": ("frozen_linear_top_1", "top_1"),
}


def _before_and_after(
    stage: str, records: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A row per classifier: its accuracy on frozen features, then after the stages that use them.

    A stage that loads what this run has pretrained has no record of its own.
    """
    frozen = records[stage].get("frozen", {})
    users = {stage}
    if stage == "pretrain":
        users |= results.keys() - records.keys() - {"robustness", "shifts"}
    stages = in_order(users)
    rows = {
        name: [frozen[before], *(results[each].get(after) for each in stages)]
        for name, (before, after) in _COMPARED.items()
        if before in frozen
    }
    return {"stages": stages, "rows": rows} if rows else None


def average_precisions(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Average precisions of the last stage that has them, in descending order."""
    for stage in reversed([*results]):
        values = results[stage].get("average_precisions")
        if values:
            ordered = sorted(values.items(), key=lambda item: -item[1])
            return {"stage": stage, "classes": ordered}
    return None


def views(path: Path) -> dict[str, Any]:
    """The sheet of augmented views; a small one is enlarged by an integer factor."""
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    width = pixels.shape[1]
    return {"uri": image_uri(pixels), "width": width * max(1, 720 // width)}


def plot_json(plot: Figure, element: str) -> dict[str, Any]:
    """A plot as JSON, to be drawn into the page's element with this id."""
    from bokeh.embed import json_item

    return json_item(plot, element)  # type: ignore[arg-type, return-value]
