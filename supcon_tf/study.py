"""Runs a study: many trainings with one factor changed at a time, box plots and curves of them.

A gin file gives methods and grid (see gin_configs/studies). Each run is `python -m supcon_tf.train`
in its own process and in its own directory below WORKDIR/trials; the same command again continues a
study that was stopped and repeats failed runs, and those whose settings have changed.
--gin_param="study.run. ..." changes the study, any other setting all of its runs; what a level of
the grid sets wins over these. At the end WORKDIR/study.html is written, one file that opens
offline. Needs Optuna: pip install '.[study]'.

examples:
  python -m supcon_tf.study --gin_file=studies/digits_stability.gin --workdir=runs/study
  python -m supcon_tf.study --gin_file=studies/digits_stability.gin --workdir=runs/study \\
      --gin_param="study.run.processes = 2" --gin_param="pretrain.run.epochs = 5"
  python -m supcon_tf.study --gin_file=studies/digits_stability.gin --list
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gin
from absl import flags

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.reporting.study import Result, write_study
from supcon_tf.run_dir import RunDir
from supcon_tf.studies import study


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = cli.new_flags()
    cli.define_gin_flags(options)
    flags.DEFINE_string("workdir", None, "DIR: the directory of the study", flag_values=options)
    flags.DEFINE_boolean("list", False, "show the runs and stop", flag_values=options)
    flags.DEFINE_boolean(
        "metrics_only",
        False,
        "let each run leave out pictures, export and report, for many short runs",
        flag_values=options,
    )
    cli.parse(options, argv, __doc__)
    if not options.gin_file:
        raise UserError("--gin_file is needed, such as --gin_file=studies/digits_stability.gin")
    cli.start_tensorflow()
    parse(options.gin_file, options.gin_param)
    if options.list:
        for point in listed_points():
            print(point.folder)
        return
    if not options.workdir:
        raise UserError("--workdir is needed: the directory that the study writes to")
    root = Path(options.workdir)
    trial = functools.partial(train_in_subprocess, metrics_only=options.metrics_only)
    points = gin.get_configurable(study.run)(root, trial=trial, state=state)
    results = [result(root, point) for point in points]
    page = write_study(results, root / "study.html", title=f"Stability: {root.resolve().name}")
    failed = sum(each.top_1 is None for each in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the same command repeats them")
    print(f"done: {page}")


def state(point: study.Point, folder: Path) -> study.State:
    """Whether the run in a directory is finished, with the settings that a point has now."""
    from supcon_tf import run_checks  # It imports all stages.

    run_dir = RunDir(folder)
    try:
        settings = config.parse(point.files, point.bindings)
    except UserError:
        return "unfinished"  # The run ends with this error.
    if run_dir.config.is_file():
        try:
            before = config.read_text(run_dir.config)
            run_checks.check_resumable(run_dir, run_dir.started_stages(), before, settings)
            run_checks.check_same_encoder(run_dir)
        except UserError as error:
            print(error, flush=True)
            return "other settings"
    metrics = run_dir.metrics()
    stages = {*run_checks.named_stages(), *run_checks.named_evaluations()}
    is_whole = stages <= metrics.keys() and study.accuracy(metrics) is not None
    return "finished" if is_whole else "unfinished"


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Configures `study.run`; bindings of other names are for all runs.

    Raises:
      UserError: a file sets something else, which no run would read.
    """
    own = [binding for binding in bindings if re.match(r"\s*(studies\.)?study\.run\.", binding)]
    # A macro belongs to those that refer to it.
    macros = {name for binding in own for name in re.findall(r"%(\w+)", binding)}
    own += [binding for binding in bindings if binding.partition("=")[0].strip() in macros]
    resolved = config.parse(files, own)
    for name in ("methods", "grid"):
        if config.bound_value(f"study.run.{name}") is None:
            raise UserError(f"study.run.{name} is not set in {files[-1]}")
    for name, value in config.parameter_values(resolved, defaults=False).items():
        if not name.startswith("study.run.") and name not in macros:
            raise UserError(
                f"a file of a study sets study.run only, got {name} = {value}: put it into "
                "study.run.bindings, or into a file of study.run.methods"
            )
    of_runs = [binding for binding in bindings if binding not in own]
    if of_runs:
        common = config.bound_value("study.run.bindings") or ()
        with gin.unlock_config():
            gin.bind_parameter("study.run.bindings", (*common, *of_runs))


def listed_points() -> list[study.Point]:
    """The runs of the configured study, without results."""
    return study.points(
        config.bound_value("study.run.methods"),
        config.bound_value("study.run.grid"),
        design=config.bound_value("study.run.design") or "one_at_a_time",
        only=config.bound_value("study.run.only") or {},
        bindings=config.bound_value("study.run.bindings") or (),
    )


def train_in_subprocess(
    files: Sequence[str],
    bindings: Sequence[str],
    run_dir: Path,
    lock: int | None,
    threads: int,
    *,
    metrics_only: bool = False,
) -> float:
    """One run of `python -m supcon_tf.train`; its output goes to a file beside the run directory.

    Args:
      files, bindings: --gin_file and --gin_param of the command.
      run_dir: its --workdir; the output goes to a file of this name with ".log".
      lock: an open file that the process holds until it ends; None for none.
      threads: threads of one TensorFlow operation, unless TF_NUM_INTRAOP_THREADS is set.
      metrics_only: --metrics_only of the command.

    Returns:
      The top-1 accuracy of its last classifying stage, or the mean average precision.

    Raises:
      TrialFailed: it ended with an error, or without an accuracy.
    """
    command = [sys.executable, "-m", "supcon_tf.train", f"--workdir={run_dir}"]
    command += [f"--gin_file={file}" for file in files]
    command += [f"--gin_param={binding}" for binding in bindings]
    command += ["--metrics_only"] if metrics_only else []
    log = run_dir.with_name(f"{run_dir.name}.log")  # A name may hold a dot.
    with log.open("a") as written:
        # A run that outlives its study keeps the lock, so that no second one starts.
        ended = subprocess.run(
            command,
            stdout=written,
            stderr=subprocess.STDOUT,
            pass_fds=() if lock is None else (lock,),
            env={"TF_NUM_INTRAOP_THREADS": str(threads), **os.environ},
            check=False,
        )
    if ended.returncode:
        *_, last = ["no output", *log.read_text().strip().splitlines()]
        raise study.TrialFailed(f"{last} ({run_dir.name}: exit code {ended.returncode}, see {log})")
    found = study.accuracy(RunDir(run_dir).metrics())
    if found is None:
        raise study.TrialFailed(f"{run_dir.name}: no stage classifies")
    return found


def result(root: Path, point: study.Point) -> Result:
    """The result of a run, with the neighbour accuracies in its run directory."""
    folder = RunDir(root / "trials" / point.folder)
    # A later run with other bindings may have taken the directory.
    if point.top_1 is None or study.made_for(folder.root) != point.key:
        return Result(point.method, point.levels, point.top_1)
    found = [stage["knn_top_1"] for stage in folder.metrics().values() if "knn_top_1" in stage]
    curve = folder.curve("pretrain")
    return Result(
        point.method,
        point.levels,
        point.top_1,
        knn_top_1=found[-1] if found else None,
        curve=[
            (row["epoch"] / curve[-1]["epoch"], row["knn_top_1"])
            for row in curve
            if "knn_top_1" in row
        ],
    )


run = functools.partial(cli.run, main)  # The console script supcon-study.

if __name__ == "__main__":
    run()
