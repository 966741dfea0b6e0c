"""The report of a run: one web page made from the files of its run directory."""

from __future__ import annotations

import datetime
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from supcon_tf.errors import UserError, check_integer
from supcon_tf.json_files import read_json
from supcon_tf.reporting import page, sections
from supcon_tf.reporting.numbers import interval_texts, metric_text
from supcon_tf.reporting.robustness import read_measured, robustness
from supcon_tf.reporting.scored_split import MAP_POINTS, read_scored_split
from supcon_tf.reporting.shifts import shifts
from supcon_tf.run_dir import RunDir


def write_report(run: RunDir | str | os.PathLike, *, map_points: int = MAP_POINTS) -> Path:
    """Writes the report of a run into its directory: one file that opens offline.

    The page depends on nothing but the files of the run directory. A section whose file is missing
    is left out; a section that cannot be drawn is replaced by the error. The map of embeddings is
    t-SNE (van der Maaten and Hinton, 2008) on cosine distances.

    Args:
        run: a run directory of `python -m supcon_tf.train`.
        map_points: largest number of test examples on the map. One CPU core needs half a minute
            for 10,000 and two minutes for 50,000.

    Returns:
        Path of the page.

    Raises:
        UserError: the configuration or the metrics are missing, a file has invalid content, or
            `map_points` is below 1.

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
    map_points = check_integer("map_points", map_points, at_least=1)
    run_dir = RunDir(page.as_run_dir(run).root.resolve())
    for file in (run_dir.config, run_dir.metrics_file):
        if not file.exists():
            raise UserError(f"{file} is missing: {_how_to_train(run_dir)}")
    try:
        config = run_dir.config.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{str(run_dir.config)!r} is not UTF-8 text: restore it") from None
    results = _read_metrics(run_dir)
    metrics = {
        stage: {key: value for key, value in values.items() if isinstance(value, int | float)}
        for stage, values in results.items()
    }
    drawn, failed = _drawn_sections(
        run_dir, has_robustness="robustness" in metrics, map_points=map_points
    )
    return page.render(
        "report.html.jinja",
        run_dir.report,
        name=run_dir.root.name,
        finished=_finished(run_dir),
        facts=_facts(config, metrics),
        headlines=_headlines(metrics),
        average_precisions=sections.average_precisions(results),
        config=config,
        metrics=metrics,
        measures=list(dict.fromkeys(key for values in metrics.values() for key in values)),
        failed=failed,
        bokeh_js=page.bokeh_js() if any(drawn[name] for name in PLOTTED) else "",
        measure=metric_text,
        intervals={stage: interval_texts(values) for stage, values in results.items()},
        **drawn,
    )


# Sections with interactive plots.
PLOTTED = ("curves", "map", "confusion", "robustness")


def _drawn_sections(
    run_dir: RunDir, *, has_robustness: bool, map_points: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The sections that are drawn from files, None where there is no file, and the errors."""
    files = [file for file in (run_dir.scored_split, run_dir.old_scored_split) if file.exists()]
    split, failed = None, {}
    try:
        split = read_scored_split(files[0]) if files else None
    except (EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        failed["test split"] = f"{files[0]} is damaged ({error})"
    measured = read_measured(run_dir) if has_robustness else None
    draw: dict[str, Callable[[], Any]] = {"encoders": lambda: sections.encoders(run_dir)}
    if run_dir.curves_file.exists():
        draw["curves"] = lambda: sections.curves(read_json(run_dir.curves_file))
    if split is not None:
        draw["map"] = lambda: sections.embedding_map(split, map_points)
        draw["confusion"] = lambda: sections.confusion(split)
    if measured is not None:
        draw["robustness"] = lambda: robustness([measured])
    draw["shifts"] = lambda: shifts({run_dir.root.name: run_dir})
    if run_dir.view_sheet.exists():
        draw["views"] = lambda: sections.views(run_dir.view_sheet)
    drawn: dict[str, Any] = dict.fromkeys((*PLOTTED, "encoders", "shifts", "views"))
    for name, function in draw.items():
        try:
            drawn[name] = function()
        except Exception as error:  # A picture must not fail a run that has trained for days.
            logging.getLogger(__name__).exception("the report has no section %r", name)
            failed[name] = f"{type(error).__name__}: {error}"
    return drawn, failed


def _how_to_train(run_dir: RunDir) -> str:
    return f"make it with `python -m supcon_tf.train --gin_file=FILE --workdir={run_dir.root}`"


def _read_metrics(run_dir: RunDir) -> dict[str, dict[str, Any]]:
    """Results of each stage, in the order the stages run."""
    metrics = run_dir.metrics()
    return {stage: {**metrics[stage]} for stage in sections.in_order(metrics.keys())}


def _finished(run_dir: RunDir) -> datetime.datetime:
    """When the last stage wrote its results."""
    seconds = run_dir.metrics_file.stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)


def _facts(config: str, stages: Iterable[str]) -> dict[str, str]:
    """Source, model and loss of the first stage that sets each, with macros replaced."""
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
    """The numbers at the top of the page, each with its stage."""
    headlines = []
    for name, key, stages in (
        # Accuracy of the last stage; speed of the first stage, which takes longest.
        ("Top-1 accuracy", "top_1", [*metrics][::-1]),
        ("Mean average precision", "mean_average_precision", [*metrics][::-1]),
        ("Mean corruption error", "mce", ["robustness"]),
        ("kNN top-1 accuracy", "knn_top_1", [*metrics][::-1]),
        ("kNN, frozen encoder", "frozen_knn_top_1", [*metrics]),
        ("Images per second", "images_per_second", [*metrics]),
    ):
        stage = next((stage for stage in stages if key in metrics.get(stage, ())), None)
        if stage:
            headlines.append(
                {"name": name, "value": metric_text(metrics[stage][key], key), "stage": stage}
            )
    seconds = {stage: values["seconds"] for stage, values in metrics.items() if "seconds" in values}
    if seconds:
        total = metric_text(sum(seconds.values()), "seconds")
        headlines.append({"name": "Time", "value": total, "stage": " + ".join(seconds)})
    return headlines
