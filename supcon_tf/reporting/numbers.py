"""Metrics as text, each in the unit of its name, and bootstrap intervals beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_PERCENT_ENDINGS = ("top_1", "top_5", "_class", "recall_at_1")


def metric_text(value: float, key: str) -> str:
    """A metric as text, in the unit of its key."""
    if not math.isfinite(value):
        return str(value)
    if key == "seconds":
        return _duration(value)
    if key == "images_per_second":
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    if key.endswith(_PERCENT_ENDINGS) or "average_precision" in key:
        return f"{value:.1%}"
    if key.endswith("mce"):
        return f"{value:.1f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def interval_texts(results: Mapping[str, Any]) -> dict[str, str]:
    """The bootstrap intervals of a stage's results: key -> such as "91.0% to 93.2%"."""
    intervals = results.get("intervals")
    if not isinstance(intervals, dict):  # A run of an older version, or another entry.
        return {}
    return {
        key: " to ".join(_short(limit, key) for limit in limits)
        for key, limits in intervals.items()
    }


def _short(value: float, key: str) -> str:
    text = metric_text(value, key)
    return text if text.endswith("%") else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
