"""The web page of a run, made from nothing but the run's folder."""

from __future__ import annotations

import datetime
import json
import math
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from supcon_tf.errors import UserError
from supcon_tf.reporting import page, sections
from supcon_tf.reporting.robustness import read_measured, robustness
from supcon_tf.reporting.scored_split import read_held_out


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Write `report.html` into a run's folder: one file that opens offline.

    The page is a function of the folder's `config.gin` and `metrics.json` and, where they exist,
    `curves.json`, `test_split.npz`, `views.png` and `robustness.json`; a section whose file is
    missing is left out.
    The map of embeddings is t-SNE (van der Maaten and Hinton, 2008) on cosine distances.

    Args:
        workdir: folder of a run, as `python -m supcon_tf.train` leaves it.

    Returns:
        Path of the page.

    Raises:
        UserError: `config.gin` or `metrics.json` is missing.
        UserError: a file does not hold what it should.

    Example:
        >>> import pathlib, tempfile
        >>> from supcon_tf.reporting import write_report
        >>> with tempfile.TemporaryDirectory() as workdir:
        ...     folder = pathlib.Path(workdir)
        ...     _ = (folder / "config.gin").write_text("pretrain.run.epochs = 1")
        ...     _ = (folder / "metrics.json").write_text('{"pretrain": {"seconds": 2.0}}')
        ...     write_report(folder).name
        'report.html'
    """
    folder = pathlib.Path(workdir).resolve()
    for name in ("config.gin", "metrics.json"):
        if not (folder / name).exists():
            raise UserError(f"{folder / name} is missing: {_how_to_make(folder)}")
    config = (folder / "config.gin").read_text(encoding="utf-8")
    results = _read_metrics(folder)
    metrics = {
        stage: {key: value for key, value in values.items() if isinstance(value, int | float)}
        for stage, values in results.items()
    }
    curves = embedding_map = confusion = views = None
    if (folder / "curves.json").exists():
        curves = sections.curves(json.loads((folder / "curves.json").read_text("utf-8")))
    if (folder / "test_split.npz").exists():
        held_out = read_held_out(folder / "test_split.npz")
        embedding_map = sections.embedding_map(held_out)
        confusion = sections.confusion(held_out)
    if (folder / "views.png").exists():
        views = sections.views(folder / "views.png")
    measured = read_measured(folder) if "robustness" in metrics else None

    environment = page.environment()
    environment.filters["measure"] = _measure
    text = environment.get_template("report.html.jinja").render(
        name=folder.name,
        finished=_finished(folder),
        facts=_facts(config, metrics),
        headlines=_headlines(metrics),
        curves=curves,
        map=embedding_map,
        confusion=confusion,
        average_precisions=sections.average_precisions(results),
        robustness=robustness([measured]) if measured else None,
        views=views,
        config=config,
        metrics=metrics,
        measures=list(dict.fromkeys(key for values in metrics.values() for key in values)),
        bokeh_js=page.bokeh_js() if curves or embedding_map or measured else "",
    )
    report = folder / "report.html"
    report.write_text(text, encoding="utf-8")
    return report


def _how_to_make(folder: pathlib.Path) -> str:
    return f"make it with `python -m supcon_tf.train --gin_file=FILE --workdir={folder}`"


def _read_metrics(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Results of each stage, in the order the stages run."""
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        return {stage: {**metrics[stage]} for stage in sections.in_order(metrics.keys())}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} must hold one object per stage, got {error}: {_how_to_make(folder)}"
        ) from error


def _finished(folder: pathlib.Path) -> datetime.datetime:
    """When the last stage wrote its numbers."""
    seconds = (folder / "metrics.json").stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)


def _facts(config: str, stages: Iterable[str]) -> dict[str, str]:
    """Source, model and loss, of the first stage that has each, a macro as what it stands for."""
    facts = {}
    for name in ("source", "model", "loss"):
        for stage in stages:
            # gin breaks a long line after the equals sign.
            line = re.search(
                rf"^(?:\S*\.)?{re.escape(stage)}\.run\.{name}\s*=\s*(?:\\\n\s*)?(\S.*)$",
                config,
                re.MULTILINE,
            )
            if line:
                value = line[1].strip()
                if value.startswith("%"):
                    macro = re.search(rf"^{value[1:]}\s*=\s*(\S.*)$", config, re.MULTILINE)
                    value = macro[1].strip() if macro else value
                facts[name] = value.removeprefix("@").removesuffix("()")
                break
    return facts


def _headlines(metrics: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The numbers to show large, each with the stage that it comes from."""
    headlines = []
    for name, key, stages in (
        # Accuracy is the last stage's, speed the first's: that is where the work is.
        ("Top-1 accuracy", "top_1", [*metrics][::-1]),
        ("Mean average precision", "mean_average_precision", [*metrics][::-1]),
        ("Mean corruption error", "mce", ["robustness"]),
        ("kNN top-1 accuracy", "knn_top_1", [*metrics][::-1]),
        ("Images per second", "images_per_second", [*metrics]),
    ):
        stage = next((stage for stage in stages if key in metrics.get(stage, ())), None)
        if stage:
            headlines.append(
                {"name": name, "value": _measure(metrics[stage][key], key), "stage": stage}
            )
    seconds = {stage: values["seconds"] for stage, values in metrics.items() if "seconds" in values}
    if seconds:
        time = _measure(sum(seconds.values()), "seconds")
        headlines.append({"name": "Time", "value": time, "stage": " + ".join(seconds)})
    return headlines


def _measure(value: float, key: str) -> str:
    """A number of metrics.json as a reader wants it; those of unknown keys as they are."""
    if not math.isfinite(value):
        return str(value)
    if key == "seconds":
        return _duration(value)
    if key == "images_per_second":
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    if key.endswith(("top_1", "top_5", "mean_per_class")) or "average_precision" in key:
        return f"{value:.1%}"
    if key.endswith("mce"):
        return f"{value:.1f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
