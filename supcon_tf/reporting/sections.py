"""What the sections of a run's page show: plots, pictures and their words, for the template."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from supcon_tf.reporting import plots
from supcon_tf.reporting.scored_split import ScoredSplit, image_uri, most_confused_pairs

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

STAGES = ("pretrain", "linear", "finetune", "robustness")
PAIRS = 10
EXAMPLES_PER_PAIR = 4


def in_order(stages: Collection[str]) -> list[str]:
    """Stages as they run; ones of other names come last."""
    return sorted(stages, key=(*STAGES, *stages).index)


def curves(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Loss and accuracy plots of each stage."""
    shown: list[dict[str, Any]] = []
    for stage in in_order(stages):
        rows = stages[stage]
        drawn = []
        for title, names in (
            ("Loss", {"loss": "training"}),
            (
                "Accuracy",
                {
                    "accuracy": "training",
                    "validation_accuracy": "validation",
                    "knn_top_1": "kNN, held-out",
                },
            ),
            ("Mean average precision", {"validation_mean_average_precision": "validation"}),
        ):
            lines = {key: name for key, name in names.items() if _finite(rows, key)}
            if lines:
                plot = plots.curve_figure(rows, keys=list(lines), percent=title != "Loss")
                courses = [_course(rows, key, name) for key, name in lines.items()]
                drawn.append(
                    {
                        "title": title,
                        "legend": list(zip(lines.values(), plots.CURVE_STYLES, strict=False)),
                        "alt": f"{title} of stage {stage} by epoch. {' '.join(courses)}",
                        "plot": plot_json(plot, f"{title.lower().replace(' ', '-')}-{len(shown)}"),
                    }
                )
        shown.append(
            {
                "stage": stage,
                "plots": drawn,
                "epochs": len(rows),
                "without_loss": len(rows) - len(_finite(rows, "loss")),
            }
        )
    return shown


def _finite(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) wherever the value is finite; strict JSON has null for NaN."""
    return [
        (row["epoch"], row[key])
        for row in rows
        if row.get(key) is not None and math.isfinite(row[key])
    ]


def _course(rows: Sequence[Mapping[str, Any]], key: str, name: str) -> str:
    """A line's two ends in words, for those who cannot see it."""
    points = _finite(rows, key)
    (first, start), (last, end) = points[0], points[-1]
    return f"{name.capitalize()}: {start:.3g} at epoch {first:g}, {end:.3g} at epoch {last:g}."


def embedding_map(held_out: ScoredSplit) -> dict[str, Any] | None:
    """The map and its legend; None where no embedding is finite."""
    shown = len(plots.map_sample(held_out))
    if not shown:
        return None
    legend = [
        {"entry": entry, "name": held_out.class_names[label]}
        for entry, label in enumerate(plots.map_classes(held_out))
    ]
    others = len(held_out.class_names) - len(legend)
    left = [f"{others:,} other classes"] if others else []
    if (held_out.classes < 0).any():
        left.append("several classes, or none")
    if left:
        legend.append({"entry": -1, "name": "; ".join(left)})
    return {
        "plot": plot_json(plots.map_figure(held_out), "map"),
        "legend": [{**item, "style": plots.entry_style(item["entry"])} for item in legend],
        "others": others,
        "coloured": len(held_out.class_names) - others,
        "multi_label": held_out.labels.ndim == 2,
        "shown": shown,
        "total": len(held_out.labels),
        "dimensions": held_out.embeddings.shape[1],
        "predicted": held_out.predictions is not None,
    }


def confusion(held_out: ScoredSplit) -> dict[str, Any] | None:
    """The confusion matrix and the most confused pairs; None where not one class was predicted."""
    predictions = held_out.predictions
    if predictions is None:
        return None
    names = held_out.class_names
    shown = min(len(names), plots.MATRIX_CLASSES)
    pairs = [
        {
            "label": names[pair.label],
            "prediction": names[pair.prediction],
            "count": len(pair.examples),
            "share": pair.share,
            "images": [
                held_out.thumbnails[i] for i in pair.examples if i < len(held_out.thumbnails)
            ][:EXAMPLES_PER_PAIR],
        }
        for pair in most_confused_pairs(held_out.labels, predictions, limit=PAIRS)
    ]
    return {
        "plot": plot_json(plots.confusion_figure(held_out, predictions), "confusion"),
        # Room for a count in each cell and for the names, and no cell larger than a thumb.
        "min_width": 80 + shown * (27 if shown <= plots.COUNTED_CLASSES else 14),
        "max_width": 120 + shown * 80,
        "shown": shown,
        "classes": len(names),
        "right": int((predictions == held_out.labels).sum()),
        "total": len(held_out.labels),
        "pairs": pairs,
    }


def average_precisions(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The classes of the last stage that has them, the best first; None where none has."""
    for stage in reversed([*results]):
        of_classes = results[stage].get("average_precisions")
        if of_classes:
            ordered = sorted(of_classes.items(), key=lambda item: -item[1])
            return {"stage": stage, "classes": ordered}
    return None


def views(path: pathlib.Path) -> dict[str, Any]:
    """The sheet of augmented views, enlarged by a whole factor when it is small."""
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    width = pixels.shape[1]
    return {"uri": image_uri(pixels), "width": width * max(1, 720 // width)}


def plot_json(plot: Figure, element: str) -> dict[str, Any]:
    """A plot as JSON, to be drawn into the page's element of that id."""
    from bokeh.embed import json_item

    return json_item(plot, element)  # type: ignore[arg-type, return-value]
