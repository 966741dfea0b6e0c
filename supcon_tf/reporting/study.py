"""The web page of a study: box plots of each factor, and curves, for each method."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.reporting import page
from supcon_tf.reporting.plots import HOVER, empty_figure, entry_style
from supcon_tf.reporting.sections import plot_json

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure


@dataclasses.dataclass(frozen=True)
class Result:
    """One run of a study.

    Args:
        method: name of the method.
        levels: factor -> its level.
        top_1: accuracy; None if the run failed.
        knn_top_1: accuracy of the nearest neighbours, if it was measured.
        curve: fraction of the pretraining and kNN top-1 at each snapshot.
    """

    method: str
    levels: Mapping[str, str]
    top_1: float | None
    knn_top_1: float | None = None
    curve: Sequence[tuple[float, float]] = ()


def write_study(
    results: Sequence[Result], output: str | os.PathLike, *, title: str = "Stability"
) -> Path:
    """Writes a page with a box per factor and method, curves, and every run in a table.

    Args:
        results: the first one of each method has all factors at their defaults.
        output: path of the page.
        title: heading of the page.

    Returns:
        Path of the page.

    Raises:
        UserError: no run has a result.
    """
    if not any(result.top_1 is not None for result in results):
        raise UserError(f"none of the {len(results)} runs of the study has a result")
    groups = grouped(results)
    methods = list(dict.fromkeys(result.method for result in results))
    return page.render(
        "study.html.jinja",
        output,
        title=title,
        methods=[(name, entry_style(number)) for number, name in enumerate(methods)],
        plot=plot_json(box_figure(groups, methods), "boxes"),
        curves=(
            plot_json(neighbor_figure(results, methods), "curves")
            if any(result.curve for result in results)
            else None
        ),
        results=results,
        factors=list(results[0].levels),
        failed=sum(result.top_1 is None for result in results),
        spread=[_spread(name, results) for name in methods],
        bokeh_js=page.bokeh_js(),
    )


def grouped(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Factor -> the runs with all other factors at their defaults.

    If several factors were changed together: "factor = level" -> all runs with this level.
    """
    defaults = results[0].levels
    if not defaults:
        return {"all runs": list(results)}

    def changed(result: Result) -> list[str]:
        return [f for f, level in result.levels.items() if level != defaults[f]]

    if all(len(changed(result)) <= 1 for result in results):
        return {
            factor: [result for result in results if set(changed(result)) <= {factor}]
            for factor in defaults
        }
    groups: dict[str, list[Result]] = {}
    for result in results:
        for factor, level in result.levels.items():
            groups.setdefault(f"{factor} = {level}", []).append(result)
    return groups


def box_figure(groups: Mapping[str, Sequence[Result]], methods: Sequence[str]) -> Figure:
    """For each group and method, a box of the quartiles with the median, and a point per run."""
    from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, NumeralTickFormatter, Range1d

    width = 0.7 / len(methods)
    plot = empty_figure(
        height=420,
        sizing_mode="stretch_width",
        x_range=Range1d(start=-0.5, end=len(groups) - 0.5),
    )
    for number, method in enumerate(methods):
        colour, marker = entry_style(number)
        shift = width * (number - (len(methods) - 1) / 2)
        points: dict[str, list] = {"x": [], "top_1": [], "text": []}
        for place, (name, runs) in enumerate(groups.items()):
            of_method = [run for run in runs if run.method == method and run.top_1 is not None]
            if len({tuple(run.levels.items()) for run in of_method}) > 1:
                low, middle, high = np.quantile([run.top_1 for run in of_method], (0.25, 0.5, 0.75))
                at = place + shift
                plot.quad(
                    left=at - 0.42 * width,
                    right=at + 0.42 * width,
                    bottom=low,
                    top=high,
                    fill_color=colour,
                    fill_alpha=0.25,
                    line_color=colour,
                )
                plot.segment(
                    at - 0.42 * width, middle, at + 0.42 * width, middle, color=colour, line_width=3
                )
            # Side by side, in the order of the levels.
            for order, run in enumerate(of_method):
                offset = 0.5 * width * ((order + 0.5) / len(of_method) - 0.5)
                points["x"].append(place + shift + offset)
                points["top_1"].append(run.top_1)
                points["text"].append(f"{name}: {run.levels.get(name, 'all runs')}")
        source = ColumnDataSource({**points, "method": [method] * len(points["x"])})
        scattered = plot.scatter("x", "top_1", source=source, color=colour, marker=marker, size=7)
        tooltips = HOVER % "<b>@method</b><br>@text<br>top-1 @top_1{0.0%}"
        plot.add_tools(HoverTool(renderers=[scattered], tooltips=tooltips))
    plot.xaxis.ticker = FixedTicker(ticks=list(range(len(groups))))
    plot.xaxis.major_label_overrides = dict(enumerate(groups))
    plot.xaxis.major_label_orientation = 0.6
    plot.xgrid.visible = False
    plot.yaxis.axis_label = "top-1 accuracy"
    plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    return plot


def neighbor_figure(results: Sequence[Result], methods: Sequence[str]) -> Figure:
    """A line for every run with snapshots: kNN top-1 by fraction of the pretraining."""
    from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter

    plot = empty_figure(height=420, sizing_mode="stretch_width")
    for result in results:
        if not result.curve:
            continue
        colour, marker = entry_style(methods.index(result.method))
        shares, accuracies = zip(*result.curve, strict=True)
        settings = ", ".join(f"{factor} {level}" for factor, level in result.levels.items())
        source = ColumnDataSource(
            {"share": shares, "top_1": accuracies}
            | {"method": [result.method] * len(shares), "text": [settings] * len(shares)}
        )
        plot.line("share", "top_1", source=source, color=colour, line_width=2)
        points = plot.scatter("share", "top_1", source=source, color=colour, marker=marker, size=7)
        tooltips = HOVER % "<b>@method</b><br>@text<br>kNN top-1 @top_1{0.0%}"
        plot.add_tools(HoverTool(renderers=[points], tooltips=tooltips))
    plot.xaxis.axis_label = "fraction of pretraining"
    plot.yaxis.axis_label = "kNN top-1 accuracy"
    plot.xaxis.formatter = plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    return plot


def _spread(method: str, results: Sequence[Result]) -> dict[str, float | str | int]:
    """Summary statistics of a method's accuracies."""
    accuracies = [r.top_1 for r in results if r.method == method and r.top_1 is not None]
    values = np.array(accuracies) if accuracies else np.array([np.nan])
    return {
        "method": method,
        "runs": len(accuracies),
        "lowest": float(values.min()),
        "median": float(np.median(values)),
        "highest": float(values.max()),
        "deviation": float(values.std(ddof=1)) if len(accuracies) > 1 else float("nan"),
    }
