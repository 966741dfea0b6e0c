"""The section of reports and comparisons on other test sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supcon_tf.reporting.numbers import interval_texts, metric_text
from supcon_tf.run_dir import RunDir

# Heading of a column -> key in metrics.json.
COLUMNS = {
    "Images": "num_images",
    "Classes": "num_classes",
    "Top-1": "top_1",
    "Top-5": "top_5",
    "Mean per class": "mean_per_class",
    "Test split top-1": "test_split_top_1",
    "ECE": "expected_calibration_error",
}


def shifts(runs: Mapping[str, RunDir]) -> dict[str, Any] | None:
    """The section of one run, or of several: a row per set and run; None without results.

    Args:
        runs: name -> run directory.

    Raises:
        UserError: a damaged metrics.json.
    """
    results = {name: run_dir.shifts() for name, run_dir in runs.items()}
    sets = dict.fromkeys(name for measured in results.values() for name in measured)
    rows = [
        {"set": each, "run": run, "cells": cells(measured[each])}
        for each in sets
        for run, measured in results.items()
        if each in measured
    ]
    return {"rows": rows, "columns": list(COLUMNS), "many": len(runs) > 1} if rows else None


def cells(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The text of each column, and of its interval; "-" for what was not measured."""
    intervals = interval_texts(results)
    return [
        (_text(results[key], key) if key in results else "-", intervals.get(key, ""))
        for key in COLUMNS.values()
    ]


def _text(value: float, key: str) -> str:
    if key == "expected_calibration_error":
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else metric_text(value, key)
