"""The web page that compares runs on corrupted images."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from supcon_tf.errors import UserError
from supcon_tf.reporting import page
from supcon_tf.reporting.robustness import Measured, read_measured, robustness


def write_comparison(
    workdirs: Sequence[str | os.PathLike], output: str | os.PathLike
) -> pathlib.Path:
    """Write one page with the robustness of several runs: one file that opens offline.

    Args:
        workdirs: folders of runs whose robustness stage has finished, on the same images.
        output: the page.

    Returns:
        Path of the page.

    Raises:
        UserError: a run that was not measured, or measured on other images than the first.
    """
    runs = []
    for workdir in workdirs:
        measured = read_measured(pathlib.Path(workdir))
        if measured is None:
            raise UserError(
                f"{os.fspath(workdir)!r} has no results on corrupted images: python -m "
                "supcon_tf.evaluate measures them"
            )
        runs.append(measured)
    for run in runs[1:]:
        _refuse_other_images(runs[0], run)
    shown = robustness(runs)
    text = (
        page.environment()
        .get_template("comparison.html.jinja")
        .render(
            names=[run["name"] for run in shown["runs"]],
            robustness=shown,
            bokeh_js=page.bokeh_js(),
        )
    )
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _refuse_other_images(first: Measured, other: Measured) -> None:
    for name in (
        "source",
        "corrupted",
        "num_images",
        "seed",
        "corruptions",
        "severities",
        "classes",
    ):
        values = [_condition(run, name) for run in (first, other)]
        if values[0] != values[1]:
            raise UserError(
                f"{str(first.folder)!r} and {str(other.folder)!r} were measured with other {name}, "
                f"{values[0]} and {values[1]}: give the same settings to both by --gin_param"
            )


def _condition(run: Measured, name: str) -> object:
    return {
        **run.settings,
        "corruptions": list(run.results["errors"]),
        "severities": run.results["severities"],
        "classes": run.class_names,
    }[name]
