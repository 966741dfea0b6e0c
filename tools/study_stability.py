"""Runs a study: many trainings with one factor changed at a time, box plots and curves of them.

A gin file says methods and grid (see gin_configs/studies). Each run is `python -m supcon_tf.train`
in a process and a folder of its own below WORKDIR/trials; the same command again goes on where a
killed study stopped and tries failed runs again. WORKDIR/study.html is written at the end and opens
offline. Needs Optuna: pip install '.[study]'.

examples:
  python tools/study_stability.py --gin_file=studies/digits_stability.gin --workdir=runs/study
  python tools/study_stability.py --gin_file=studies/digits_stability.gin --workdir=runs/study \\
      --gin_param="study.run.processes = 2"
  python tools/study_stability.py --gin_file=studies/digits_stability.gin --list
"""

from pathlib import Path

import gin

from supcon_tf import cli, config
from supcon_tf.reporting.study import Result, write_study
from supcon_tf.run_dir import RunDir
from supcon_tf.studies import study


def result(root: Path, point: study.Point) -> Result:
    """A run with what its folder tells of its neighbours."""
    folder = RunDir(root / "trials" / point.folder)
    # The folder may be that of a later run with other bindings.
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


def main(arguments: list[str] | None = None) -> None:
    """Runs the tool."""
    parser = cli.Parser(__doc__, prog="study_stability")
    parser.prog = "tools/study_stability.py"
    parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="as train")
    parser.add_argument(
        "--gin_param", action="append", default=[], metavar="BINDING", help="as train"
    )
    parser.add_argument("--workdir", metavar="DIR", help="the study's folder")
    parser.add_argument("--list", action="store_true", help="show the runs and stop")
    options = parser.parse_args(arguments)
    if not options.gin_file:
        parser.error("--gin_file is needed, such as --gin_file=studies/digits_stability.gin")
    config.parse(options.gin_file, options.gin_param)
    for name in ("methods", "grid"):
        if config.bound_value(f"study.run.{name}") is None:
            parser.error(f"study.run.{name} is not set in {options.gin_file[-1]}")
    if options.list:
        for point in study.points(
            config.bound_value("study.run.methods"),
            config.bound_value("study.run.grid"),
            design=config.bound_value("study.run.design") or "one_at_a_time",
            only=config.bound_value("study.run.only") or {},
        ):
            print(point.folder)
        return
    if not options.workdir:
        parser.error("--workdir is needed: the folder that the study writes to")
    root = Path(options.workdir)
    points = gin.get_configurable(study.run)(root)
    results = [result(root, point) for point in points]
    page = write_study(results, root / "study.html", title=f"Stability: {root.resolve().name}")
    failed = sum(each.top_1 is None for each in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the same command tries them again")
    print(f"done: {page}")


if __name__ == "__main__":
    cli.run(main)
