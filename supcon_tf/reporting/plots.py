"""Interactive plots of a run's report, as Bokeh figures.

Text, grid and axis colours come from the page's style sheet (`--bk-*` properties), so that the
plots follow its light and dark mode. Data colours start with Okabe and Ito's colour-blind safe
palette; marker shapes repeat the information.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from supcon_tf.reporting.scored_split import (
    MAP_POINTS,
    ScoredSplit,
    map_coordinates,
    map_sample,
    most_confused_classes,
)

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure as Figure

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8c8c8c"
# 10 colours and 3 shapes, both advance with the class: 30 different pairs.
COLOURS = (
    *(BLUE, "#e69f00", GREEN, "#cc79a7", "#56b4e9", ORANGE),
    *("#b0306a", "#999933", "#6a5acd", "#a0622d"),
)
MARKERS = ("circle", "triangle", "square")
CURVE_STYLES = ((BLUE, "circle"), (ORANGE, "triangle"), (GREEN, "square"))
MAP_CLASSES = 20
MATRIX_CLASSES = 40
COUNTED_CLASSES = 20

CURVE_HOVER = {
    "epoch": "epoch {:g}",
    "step": "step {:,}",
    "loss": "loss {:.4g}",
    "accuracy": "accuracy {:.1%}",
    "validation_accuracy": "validation accuracy {:.1%}",
    "knn_top_1": "kNN of test images {:.1%}",
    "validation_mean_average_precision": "validation mean average precision {:.1%}",
    "contrastive_accuracy": "nearest view of the class {:.1%}",
    "alignment": "alignment {:.3f}",
    "uniformity": "uniformity {:.3f}",
    "effective_rank": "effective rank {:.1f}",
    "learning_rate": "learning rate {:.3g}",
    "images_per_second": "{:,.0f} images/s",
}
# Bokeh renders this in a shadow tree, where the page's style sheet does not apply, and drops a
# <style> element outside the <div>.
HOVER = """<div><style>
div { max-width: min(16rem, 36vw); font: 0.8rem/1.4 sans-serif; color: #1b1f24 }
div { overflow-wrap: anywhere }
img { display: block; height: 96px; margin-bottom: 4px; image-rendering: pixelated }
</style>%s</div>"""


def curve_figure(
    rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str], percent: bool = False
) -> Figure:
    """Up to three lines over the epochs of a stage, in the order of `CURVE_STYLES`.

    Args:
        rows: one record per epoch, with "epoch"; a NaN leaves a gap, a missing value does not.
        keys: values to draw; the first line shows the tooltip.
        percent: shows fractions in percent.
    """
    from bokeh.models import BasicTicker, ColumnDataSource, HoverTool, NumeralTickFormatter

    plot = empty_figure(height=260, sizing_mode="stretch_width")
    plot.xaxis.axis_label = "epoch"
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    if percent:
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]%")
    for key, (colour, marker) in zip(keys, CURVE_STYLES, strict=False):
        known = [row for row in rows if row.get(key) is not None]
        source = ColumnDataSource(
            {
                "epoch": [row["epoch"] for row in known],
                key: [row[key] for row in known],
                "text": [
                    "<br>".join(
                        text.format(row[name])
                        for name, text in CURVE_HOVER.items()
                        if row.get(name) is not None
                    )
                    for row in known
                ],
            }
        )
        line = plot.line("epoch", key, source=source, line_width=2, color=colour)
        size = 5 if len(known) <= 60 else 2
        points = plot.scatter("epoch", key, source=source, size=size, marker=marker, color=colour)
        if key == keys[0]:
            # A line also has tooltips between its points, but needs two points.
            target = line if len(known) > 1 else points
            plot.add_tools(
                HoverTool(renderers=[target], mode="vline", tooltips=HOVER % "@text{safe}")
            )
    return plot


def map_classes(split: ScoredSplit) -> np.ndarray:
    """Indices of the at most 20 classes with different colours on the map."""
    num_classes = len(split.class_names)
    if num_classes <= MAP_CLASSES:
        return np.arange(num_classes)
    # The last entry of the legend is for all other classes.
    if split.predictions is None:
        return np.arange(MAP_CLASSES - 1)
    return most_confused_classes(split.labels, split.predictions, limit=MAP_CLASSES - 1)


def map_figure(split: ScoredSplit, points: int = MAP_POINTS) -> Figure:
    """Embeddings in the plane, coloured by class; a tooltip shows the image and its classes."""
    from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, HoverTool

    chosen = map_sample(split, points)
    # The last entry, index -1, is for examples with several classes or none.
    entry_of_class = np.full(len(split.class_names) + 1, -1)
    coloured = map_classes(split)
    entry_of_class[coloured] = np.arange(len(coloured))
    entries = entry_of_class[split.classes[chosen]]
    x, y = map_coordinates(split.embeddings[chosen]).T
    columns = {
        "x": x,
        "y": y,
        "entry": entries,
        "colour": [entry_style(entry)[0] for entry in entries],
        "marker": [entry_style(entry)[1] for entry in entries],
        "label": [split.label_text(i) for i in chosen],
        "image": [
            f'<img alt="" src="{split.thumbnails[i]}">' if i < len(split.thumbnails) else ""
            for i in chosen
        ],
    }
    text = "<b>@label</b>"
    if split.probabilities is not None and split.predictions is not None:
        predictions = split.predictions[chosen]
        columns["prediction"] = [split.class_names[prediction] for prediction in predictions]
        columns["probability"] = split.probabilities[chosen, predictions]
        text += "<br>predicted @prediction (@probability{0%})"
    if split.paths:
        columns["path"] = [split.paths[i] for i in chosen]
        text += "<br><small>@path</small>"
    plot = empty_figure(
        sizing_mode="scale_width",
        aspect_ratio=1,
        tools="pan,box_zoom,reset,save",
        toolbar_location="above",
    )
    # An active drag tool would keep touch screens from scrolling.
    plot.toolbar.active_drag = None
    plot.axis.visible = False
    plot.grid.visible = False
    drawn = plot.scatter(
        "x",
        "y",
        source=ColumnDataSource(columns),
        view=CDSView(filter=BooleanFilter()),
        name="map",
        marker="marker",
        fill_color="colour",
        line_color="colour",
        size=max(3.0, 7.0 * min(1.0, MAP_POINTS / len(chosen)) ** 0.25),
        fill_alpha=0.7,
        line_alpha=0.9,
    )
    plot.add_tools(HoverTool(renderers=[drawn], limit=1, tooltips=HOVER % f"@image{{safe}}{text}"))
    return plot


def entry_style(entry: int) -> tuple[str, str]:
    """Colour and marker of a legend entry; -1 is for all other examples."""
    if entry < 0:
        return GREY, "circle"
    return COLOURS[entry % len(COLOURS)], MARKERS[entry % len(MARKERS)]


def confusion_figure(split: ScoredSplit, predictions: np.ndarray) -> Figure:
    """Counts of true and predicted class: correct ones blue, wrong ones orange."""
    from bokeh.models import HoverTool, Range1d

    if len(split.class_names) <= MATRIX_CLASSES:
        shown = np.arange(len(split.class_names))
    else:
        shown = most_confused_classes(split.labels, predictions, limit=MATRIX_CLASSES)
    plot = empty_figure(
        sizing_mode="scale_width",
        aspect_ratio=1,
        x_range=Range1d(start=-0.5, end=len(shown) - 0.5),
        y_range=Range1d(start=len(shown) - 0.5, end=-0.5),
    )
    source = _matrix_cells(split, predictions, shown)
    cells = plot.rect(
        "x", "y", width=0.94, height=0.94, source=source, fill_color="colour", line_color=None
    )
    if len(shown) <= COUNTED_CLASSES:
        plot.text(
            "x",
            "y",
            text="count",
            source=source,
            text_color="ink",
            text_align="center",
            text_baseline="middle",
            text_font_size="11px",
        )
    plot.add_tools(
        HoverTool(
            renderers=[cells],
            tooltips=HOVER % "<b>@count</b> of class <b>@label</b> (@share{0.0%})"
            "<br>predicted <b>@prediction</b>",
        )
    )
    plot.grid.visible = False
    plot.xaxis.axis_label, plot.yaxis.axis_label = "predicted class", "true class"
    _name_ticks(plot, [split.class_names[c] for c in shown])
    return plot


def _matrix_cells(
    split: ScoredSplit, predictions: np.ndarray, shown: np.ndarray
) -> ColumnDataSource:
    """The non-empty cells of the confusion matrix of the shown classes."""
    from bokeh.models import ColumnDataSource

    pairs, counts = np.unique(np.stack([split.labels, predictions]), axis=1, return_counts=True)
    inside = np.isin(pairs, shown).all(axis=0)
    (rows, columns), counts = pairs[:, inside], counts[inside]
    shares = counts / np.bincount(split.labels)[rows]
    # The square root makes single errors visible beside a full diagonal.
    shades = np.sqrt(shares)
    return ColumnDataSource(
        {
            "x": np.searchsorted(shown, columns),
            "y": np.searchsorted(shown, rows),
            "count": counts,
            "share": shares,
            "colour": [
                mix((204, 225, 242), (0, 95, 155), shade)
                if right
                else mix((250, 224, 205), (190, 70, 0), shade)
                for shade, right in zip(shades, rows == columns, strict=True)
            ],
            "ink": np.where(shades > 0.5, "white", "black"),
            "label": [split.class_names[row] for row in rows],
            "prediction": [split.class_names[column] for column in columns],
        }
    )


def _name_ticks(plot: Figure, names: Sequence[str]) -> None:
    """Labels both axes with class names, shortened to 14 characters."""
    from bokeh.models import FixedTicker, PlainText

    short = [name if len(name) <= 14 else name[:13] + "…" for name in names]
    for axis in plot.axis:
        axis.ticker = FixedTicker(ticks=list(range(len(short))))
        # Bokeh would read plain strings with $$ as formulas.
        axis.major_label_overrides = {i: PlainText(text=name) for i, name in enumerate(short)}
        axis.major_tick_line_color = axis.axis_line_color = None
    if max(map(len, short)) > 3:
        plot.xaxis.major_label_orientation = math.pi / 2


def empty_figure(**options) -> Figure:
    """A figure in the page's colours, without tools."""
    from bokeh.plotting import figure

    plot = figure(**{"tools": "", "toolbar_location": None, **options})
    plot.toolbar.logo = None
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.minor_tick_line_color = None
    return plot


def mix(low: Sequence[int], high: Sequence[int], amount: float) -> str:
    """Colour between two RGB triples, as a hex code."""
    return "#" + "".join(
        f"{round(a + (b - a) * amount):02x}" for a, b in zip(low, high, strict=True)
    )
