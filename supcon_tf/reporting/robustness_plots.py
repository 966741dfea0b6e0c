"""Interactive plots of robustness and calibration on corrupted images, as Bokeh figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from supcon_tf.reporting.plots import GREY, HOVER, empty_figure, entry_style, mix

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

    from supcon_tf.evaluation import Reliability

# From no corruption to severity 5; both are visible on light and dark pages.
_MILD, _STRONG = (0, 114, 178), (213, 94, 0)
_BAR_PX = 13


def severity_style(severity: int) -> tuple[str, str]:
    """Colour and marker of a severity, 0 for clean images."""
    return mix(_MILD, _STRONG, severity / 5), "circle"


def severity_figure(
    runs: Mapping[str, Mapping[int, np.ndarray]], *, label: str, percent: bool
) -> Figure:
    """Mean over the corruptions at each severity, with their interquartile range.

    Args:
        runs: name -> severity -> a value for each corruption; 0 is clean and has one.
        label: title of the vertical axis.
        percent: shows fractions in percent.
    """
    from bokeh.models import (
        ColumnDataSource,
        DataRange1d,
        FixedTicker,
        HoverTool,
        NumeralTickFormatter,
    )

    # For equal values, the range would be from -100 % to 100 % without a minimum length.
    plot = empty_figure(
        height=320, sizing_mode="stretch_width", y_range=DataRange1d(min_interval=0.05)
    )
    severities = sorted({severity for values in runs.values() for severity in values})
    form = "{:.1%}" if percent else "{:.3f}"
    for number, (name, values) in enumerate(runs.items()):
        colour, marker = entry_style(number)
        # Side by side, so that the ranges do not overlap.
        shift = 0.09 * (number - (len(runs) - 1) / 2)
        measured = sorted(values)
        quartiles = np.array([np.quantile(values[severity], (0.25, 0.75)) for severity in measured])
        means = [float(np.mean(values[severity])) for severity in measured]
        source = ColumnDataSource(
            {
                "x": [severity + shift for severity in measured],
                "mean": means,
                "low": quartiles[:, 0],
                "high": quartiles[:, 1],
                "name": [name] * len(measured),
                "text": [
                    f"{'clean' if severity == 0 else f'severity {severity}'}: {form.format(mean)}"
                    for severity, mean in zip(measured, means, strict=True)
                ],
            }
        )
        plot.segment(
            "x", "low", "x", "high", source=source, color=colour, line_width=4, line_alpha=0.35
        )
        plot.line("x", "mean", source=source, color=colour, line_width=2)
        points = plot.scatter("x", "mean", source=source, color=colour, marker=marker, size=8)
        plot.add_tools(HoverTool(renderers=[points], tooltips=HOVER % "<b>@name</b><br>@text"))
    plot.xaxis.ticker = FixedTicker(ticks=severities)
    plot.xaxis.major_label_overrides = {0: "clean"}
    plot.xaxis.axis_label = "severity"
    plot.yaxis.axis_label = label
    if percent:
        plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    return plot


def corruption_figure(
    runs: Mapping[str, Mapping[str, float]], *, label: str, percent_of_baseline: bool
) -> Figure:
    """A bar per corruption and run.

    Args:
        runs: name -> corruption -> value, the same corruptions for all.
        label: title of the horizontal axis.
        percent_of_baseline: values in percent of the baseline's; otherwise fractions.
    """
    from bokeh.models import (
        ColumnDataSource,
        DataRange1d,
        FixedTicker,
        HoverTool,
        NumeralTickFormatter,
        Range1d,
    )

    corruptions = list(next(iter(runs.values())))
    group = 0.8 / len(runs)
    plot = empty_figure(
        height=round(70 + len(corruptions) * (_BAR_PX * len(runs) + 6)),
        sizing_mode="stretch_width",
        x_range=DataRange1d(start=0),
        y_range=Range1d(start=len(corruptions) - 0.5, end=-0.5),
    )
    for number, (name, values) in enumerate(runs.items()):
        shift = group * (number - (len(runs) - 1) / 2)
        shown = [values[corruption] for corruption in corruptions]
        form = "{:.1f}" if percent_of_baseline else "{:.1%}"
        source = ColumnDataSource(
            {
                "y": [place + shift for place in range(len(corruptions))],
                "value": shown,
                "name": [name] * len(shown),
                "corruption": [_words(corruption) for corruption in corruptions],
                "text": [form.format(value) for value in shown],
            }
        )
        bars = plot.hbar(
            y="y",
            right="value",
            left=0,
            height=0.9 * group,
            source=source,
            color=entry_style(number)[0],
        )
        plot.add_tools(
            HoverTool(renderers=[bars], tooltips=HOVER % "<b>@name</b><br>@corruption: @text")
        )
    if percent_of_baseline:
        plot.vspan(x=[100], line_color=GREY, line_dash="dashed")
    else:
        plot.xaxis.formatter = NumeralTickFormatter(format="0%")
    plot.xaxis.axis_label = label
    plot.yaxis.ticker = FixedTicker(ticks=list(range(len(corruptions))))
    plot.yaxis.major_label_overrides = {
        place: _words(corruption) for place, corruption in enumerate(corruptions)
    }
    plot.ygrid.visible = False
    plot.yaxis.major_tick_line_color = None
    return plot


def reliability_figure(diagrams: Mapping[int, Reliability]) -> Figure:
    """Accuracy by confidence, a line per severity; a calibrated model is on the diagonal.

    Args:
        diagrams: severity -> its reliability diagram, 0 for clean images.
    """
    from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter, Range1d

    plot = empty_figure(
        sizing_mode="scale_width",
        aspect_ratio=1,
        x_range=Range1d(start=0, end=1.03),
        y_range=Range1d(start=-0.03, end=1.03),
    )
    plot.line([0, 1], [0, 1], color=GREY, line_dash="dashed")
    for severity, bins in diagrams.items():
        colour, _ = severity_style(severity)
        filled = bins.counts > 0
        counts = bins.counts[filled]
        source = ColumnDataSource(
            {
                "confidence": bins.confidences[filled] / counts,
                "accuracy": bins.hits[filled] / counts,
                "count": counts,
                "name": ["clean" if severity == 0 else f"severity {severity}"] * len(counts),
                # The area of a point is proportional to its number of images.
                "size": 3 + 12 * np.sqrt(counts / counts.max()),
            }
        )
        plot.line("confidence", "accuracy", source=source, color=colour, line_width=2)
        points = plot.scatter(
            "confidence", "accuracy", source=source, color=colour, size="size", fill_alpha=0.6
        )
        text = (
            "<b>@name</b><br>@count images, confidence @confidence{0.0%}, accuracy @accuracy{0.0%}"
        )
        plot.add_tools(HoverTool(renderers=[points], tooltips=HOVER % text))
    plot.xaxis.axis_label, plot.yaxis.axis_label = "confidence", "accuracy"
    for axis in plot.axis:
        axis.formatter = NumeralTickFormatter(format="0%")
    return plot


def _words(corruption: str) -> str:
    return corruption.replace("_", " ")
