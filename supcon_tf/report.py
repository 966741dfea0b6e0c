"""Writes the report of a run again, with more points on the map of its test images.

RUN/report.html is made from the files in RUN, without TensorFlow and without the images.

examples:
  python -m supcon_tf.report --workdir=runs/mine
  python -m supcon_tf.report --workdir=runs/mine --map_points=50000
"""

import functools
from collections.abc import Sequence

from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError
from supcon_tf.reporting import write_report
from supcon_tf.reporting.scored_split import MAP_POINTS


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: the run directory", flag_values=options)
    flags.DEFINE_integer(
        "map_points",
        MAP_POINTS,
        f"largest number of test images on the map, {MAP_POINTS:,} by default; one CPU core needs "
        "half a minute for 10,000",
        lower_bound=1,
        flag_values=options,
    )
    cli.parse(options, argv, __doc__)
    if not options.workdir:
        raise UserError("--workdir is needed: the directory of a finished run")
    run_dir = cli.existing_run(options.workdir)
    with run_dir.lock():
        page = write_report(run_dir, map_points=options.map_points)
    if not (run_dir.scored_split.exists() or run_dir.old_scored_split.exists()):
        print(
            f"no map and no confusion matrix: {str(run_dir.scored_split)!r} is missing, which a "
            "run with --metrics_only does not have"
        )
    print(f"done: {page}")


run = functools.partial(cli.run, main)  # The console script supcon-report.

if __name__ == "__main__":
    run()
