"""Measures finished runs on corrupted images or other test sets and compares them on one page.

Each run's classifier is measured with the settings of its own config.gin, overridden by --gin_file
and --gin_param, unless it was measured with the same settings before. A killed evaluation on
corrupted images resumes where it stopped, and its settings are in evaluate.gin; another test set
starts again. The results are in each run's metrics.json and report.html, and the comparison is one
file that opens offline. robustness/imagenet_v2.gin, imagenet_r.gin, imagenet_a.gin and
imagenet_sketch.gin measure an ImageNet run on one of these sets each and keep the results on the
others.

examples:
  python -m supcon_tf.evaluate --workdir=runs/supcon --workdir=runs/cross_entropy
  python -m supcon_tf.evaluate --workdir=runs/supcon --workdir=runs/cross_entropy \\
      --gin_file=robustness/cifar10_c.gin \\
      --gin_param="corruptions.arrays.root = '/data/CIFAR-10-C'" --output=compare.html
  python -m supcon_tf.evaluate --workdir=runs/supcon \\
      --gin_param="robustness.run.max_images = 1000" \\
      --gin_param="robustness.run.severities = (1, 3, 5)"
  python -m supcon_tf.evaluate --workdir=runs/imagenet --gin_file=robustness/imagenet_r.gin \\
      --gin_param="shifted.folder.root = '/data/imagenet-r'"
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin
from absl import flags

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.files import check_links, expanded, write_text
from supcon_tf.reporting import write_comparison, write_report
from supcon_tf.reporting.robustness import read_measured
from supcon_tf.reporting.shifts import shifts
from supcon_tf.run_dir import RunDir

# Columns of the table: heading, key in metrics.json, and number format.
COLUMNS = (
    ("clean top-1", "clean_error", lambda value: f"{1 - value:.1%}"),
    ("corrupted top-1", "unnormalized_mean_error", lambda value: f"{1 - value:.1%}"),
    ("mCE", "mce", lambda value: f"{value:.1f}"),
    ("relative mCE", "relative_mce", lambda value: f"{value:.1f}"),
    ("clean ECE", "clean_calibration_error", lambda value: f"{value:.3f}"),
    ("corrupted ECE", "calibration_errors", lambda values: f"{sum(values) / len(values):.3f}"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = cli.new_flags()
    flags.DEFINE_multi_string(
        "workdir",
        [],
        "DIR: a run directory; the page shows them in this order",
        flag_values=options,
    )
    cli.define_gin_flags(options)
    flags.DEFINE_string(
        "output",
        None,
        "FILE.html: the comparison, by default compare.html in the first --workdir",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "let the config.gin of a run import and call any Python code: only for runs whose source "
        "you trust",
        flag_values=options,
    )
    cli.parse(options, argv, __doc__)
    if not options.workdir:
        raise UserError("--workdir is needed: the directory of a finished run")
    run_dirs = [cli.existing_run(workdir) for workdir in options.workdir]
    if len({run_dir.root.resolve() for run_dir in run_dirs}) < len(run_dirs):
        raise UserError("each --workdir must be another directory")
    output = Path(options.output) if options.output else run_dirs[0].comparison
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"--output must be a file that can be written, got {str(output)!r}")
    devices = cli.start_tensorflow()
    if not options.trust:
        for run_dir in run_dirs:
            config.check_untrusted(run_dir.config)
            advice = "add --trust if you trust the source of this run"
            check_links(run_dir.root, within=run_dir.root, advice=advice)
    stages = [
        measure(run_dir, options.gin_file, options.gin_param, devices=devices, trust=options.trust)
        for run_dir in run_dirs
    ]
    on_corrupted = all("robustness" in of_run for of_run in stages)
    if on_corrupted:
        print(table(run_dirs))
    if any("shifts" in of_run for of_run in stages):
        print(table_of_shifts(run_dirs))
    page = write_comparison(run_dirs, output, on_corrupted=on_corrupted)
    print(f"done: {page}")


def measure(
    run_dir: RunDir,
    files: Sequence[str],
    bindings: Sequence[str],
    *,
    devices: str,
    trust: bool,
) -> list[str]:
    """Runs the evaluations of a run that have not finished with the same settings.

    Returns:
      The stages in experiment.run.evaluations; the robustness stage if it names none.

    Raises:
      UserError: no source of images, or as in `config.parse` and the stages; without `trust`, a
        model that does more than compute.
    """
    # These import TensorFlow.
    from supcon_tf import run_checks
    from supcon_tf.stages import experiment

    settings = config.parse([str(run_dir.config), *files], bindings)
    named = run_checks.named_evaluations()
    stages = [stage for stage in experiment.EVALUATIONS if stage in named] or ["robustness"]
    for stage in stages:
        # The shifts stage knows which sets it has measured.
        is_finished = stage == "robustness" and read_measured(run_dir) is not None
        if is_finished and run_checks.is_measured(run_dir, settings):
            print(f"{run_dir.root}: measured before")
            continue
        _check(run_dir, stage, settings, trust=trust)
        print(f"{run_dir.root}: measuring on {devices}")
        with run_dir.lock():
            gin.get_configurable(experiment.STAGES[stage])(run_dir)
            if stage == "robustness":
                write_text(run_dir.evaluation_config, settings)
            write_report(run_dir)
    return stages


def _check(run_dir: RunDir, stage: str, settings: str, *, trust: bool) -> None:
    """Checks the settings of an evaluation, and without `trust` its model."""
    # It imports TensorFlow.
    from supcon_tf.evaluation.untrusted_model import check_untrusted_model

    if config.bound_value(f"{stage}.run.source") is None:
        example = "@shifted.folder()" if stage == "shifts" else "@sources.tfds()"
        raise UserError(
            f"{str(run_dir.root)!r} has no source of images: add "
            f'--gin_param="{stage}.run.source = {example}" or another one'
        )
    export = expanded(config.bound_value(f"{stage}.run.export") or run_dir.export)
    if not trust and (export / "saved_model.pb").is_file():
        check_untrusted_model(export)
    modules = config.imported_modules(settings)
    for name in config.parameter_values(settings, defaults=False):
        if name.startswith(f"{stage}.run."):
            config.check_arguments(name, modules)


def table(run_dirs: Sequence[RunDir]) -> str:
    """A line per run; mCE where there is a baseline."""
    results = [run_dir.metrics()["robustness"] for run_dir in run_dirs]
    shown = [column for column in COLUMNS if any(column[1] in result for result in results)]
    rows = [["run", *(heading for heading, _, _ in shown)]]
    for run_dir, result in zip(run_dirs, results, strict=True):
        rows.append([str(run_dir.root), *(_written(result, key, how) for _, key, how in shown)])
    return _aligned(rows, texts=1)


def table_of_shifts(run_dirs: Sequence[RunDir]) -> str:
    """A line per set and run, with all sets that were measured."""
    shown = shifts({str(run_dir.root): run_dir for run_dir in run_dirs})
    assert shown is not None
    rows = [["set", "run", *shown["columns"]]]
    for row in shown["rows"]:
        rows.append([row["set"], row["run"], *(text for text, _ in row["cells"])])
    return _aligned(rows, texts=2)


def _aligned(rows: Sequence[Sequence[str]], *, texts: int) -> str:
    """Rows as lines; the first columns are text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < texts else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _written(result: dict[str, Any], key: str, how: Any) -> str:
    return how(result[key]) if key in result else "-"


run = functools.partial(cli.run, main)  # The console script supcon-evaluate.

if __name__ == "__main__":
    run()
