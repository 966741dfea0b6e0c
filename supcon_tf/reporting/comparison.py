"""The web page that compares runs on corrupted images and on other test sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.reporting import page
from supcon_tf.reporting.numbers import interval_texts, metric_text
from supcon_tf.reporting.robustness import Measured, read_measured, robustness, run_names
from supcon_tf.reporting.scored_split import image_names, read_predictions
from supcon_tf.reporting.sections import in_order
from supcon_tf.reporting.shifts import shifts
from supcon_tf.run_dir import RunDir

CONDITIONS = ("source", "corrupted", "num_images", "seed", "corruptions", "severities", "classes")


def write_comparison(
    runs: Sequence[RunDir | str | os.PathLike],
    output: str | os.PathLike,
    *,
    on_corrupted: bool = True,
) -> Path:
    """Writes one page with the robustness of several runs: one file that opens offline.

    Args:
        runs: run directories whose robustness stage has finished, on the same images.
        output: path of the page.
        on_corrupted: False leaves out the corrupted images, so that the runs need no robustness
            stage; the page then has the results on other test sets and on the test split.

    Returns:
        Path of the page.

    Raises:
        UserError: a run without robustness results, or with results on other images than the first.
    """
    run_dirs = [page.as_run_dir(run) for run in runs]
    compared = [_read(run_dir) for run_dir in run_dirs] if on_corrupted else []
    for run in compared[1:]:
        _check_same_images(compared[0], run)
    named = dict(zip(run_names(run_dirs), run_dirs, strict=True))
    return page.render(
        "comparison.html.jinja",
        output,
        names=list(named),
        robustness=robustness(compared) if compared else None,
        shifts=shifts(named),
        measures=_test_measures(named),
        differences=_differences(named),
        bokeh_js=page.bokeh_js() if compared else "",
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


def _differences(runs: Mapping[str, RunDir]) -> dict[str, Any] | None:
    """Paired differences of each run to the first, on the same test images with one class each."""
    # TensorFlow is imported with it.
    from supcon_tf.evaluation import Interval, bootstrap_difference, negative_log_likelihoods

    def shown(difference: Interval, *, scale: int, decimals: int) -> str:
        numbers = (difference.value, difference.low, difference.high)
        value, low, high = (f"{scale * number:+.{decimals}f}" for number in numbers)
        return f"{value}, {low} to {high}"

    scored = {name: read_predictions(run_dir.scored_split) for name, run_dir in runs.items()}
    (first, reference), *others = scored.items()
    if reference is None:
        return None
    probabilities, labels = reference
    is_right = probabilities.argmax(axis=1) == labels
    losses = negative_log_likelihoods(probabilities, labels)
    images = image_names(runs[first].scored_split)
    rows, left_out = [], []
    for name, predictions in others:
        if (
            predictions is None
            or not np.array_equal(predictions[1], labels)
            or image_names(runs[name].scored_split) != images
        ):
            left_out.append(name)
            continue
        top_1 = bootstrap_difference(predictions[0].argmax(axis=1) == labels, is_right)
        loss = bootstrap_difference(negative_log_likelihoods(*predictions), losses)
        rows.append((name, shown(top_1, scale=100, decimals=1), shown(loss, scale=1, decimals=3)))
    return {"to": first, "rows": rows, "left_out": left_out} if others else None
