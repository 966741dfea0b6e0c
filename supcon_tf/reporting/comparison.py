"""The web page that compares runs on corrupted images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supcon_tf.errors import UserError
from supcon_tf.reporting import page
from supcon_tf.reporting.numbers import interval_texts, metric_text
from supcon_tf.reporting.robustness import Measured, read_measured, robustness
from supcon_tf.reporting.sections import in_order
from supcon_tf.run_dir import RunDir

CONDITIONS = ("source", "corrupted", "num_images", "seed", "corruptions", "severities", "classes")


def write_comparison(runs: Sequence[RunDir | str | os.PathLike], output: str | os.PathLike) -> Path:
    """Writes one page with the robustness of several runs: one file that opens offline.

    Args:
        runs: run directories whose robustness stage has finished, on the same images.
        output: path of the page.

    Returns:
        Path of the page.

    Raises:
        UserError: a run without robustness results, or with results on other images than the first.
    """
    compared = [_read(page.as_run_dir(run)) for run in runs]
    for run in compared[1:]:
        _check_same_images(compared[0], run)
    shown = robustness(compared)
    named = zip(shown["runs"], compared, strict=True)
    return page.render(
        "comparison.html.jinja",
        output,
        names=[run["name"] for run in shown["runs"]],
        robustness=shown,
        measures=_test_measures({run["name"]: each.run_dir for run, each in named}),
        bokeh_js=page.bokeh_js(),
    )


def _read(run_dir: RunDir) -> Measured:
    measured = read_measured(run_dir)
    if measured is None:
        raise UserError(
            f"{str(run_dir.root)!r} has no results on corrupted images: python -m "
            "supcon_tf.evaluate measures them"
        )
    return measured


def _check_same_images(first: Measured, other: Measured) -> None:
    for name in CONDITIONS:
        values = [_condition(run, name) for run in (first, other)]
        if values[0] != values[1]:
            raise UserError(
                f"{str(first.run_dir.root)!r} and {str(other.run_dir.root)!r} were measured with "
                f"different {name}, {values[0]} and {values[1]}: measure both with the same "
                "--gin_param"
            )


def _condition(run: Measured, name: str) -> object:
    return {
        **run.settings,
        "corruptions": list(run.results["errors"]),
        "severities": run.results["severities"],
        "classes": run.class_names,
    }[name]


def _test_measures(runs: Mapping[str, RunDir]) -> dict[str, Any] | None:
    """Measures of the test split with intervals: a column per run, of its last stage with them."""
    columns = []
    for name, run_dir in runs.items():
        results = run_dir.metrics()
        stages = [stage for stage in in_order(results) if interval_texts(results[stage])]
        if stages:
            columns.append((name, stages[-1], results[stages[-1]]))
    if not columns:
        return None
    keys = dict.fromkeys(key for _, _, results in columns for key in interval_texts(results))
    cells = {
        key: [
            (metric_text(results[key], key), interval_texts(results)[key])
            if key in interval_texts(results)
            else None
            for _, _, results in columns
        ]
        for key in keys
    }
    return {"columns": [f"{name}, {stage}" for name, stage, _ in columns], "rows": cells}
