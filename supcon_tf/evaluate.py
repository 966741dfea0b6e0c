"""Measures finished runs on corrupted images and compares them on one page.

Each run's classifier is measured as its own config.gin says, with --gin_file and --gin_param on
top, unless it was measured with the same settings before; a killed evaluation goes on where it
stopped. The results are in each run's metrics.json and report.html, the settings in its
evaluate.gin, and the comparison is one file that opens offline.

examples:
  python -m supcon_tf.evaluate --workdir=runs/supcon --workdir=runs/cross_entropy
  python -m supcon_tf.evaluate --workdir=runs/supcon --workdir=runs/cross_entropy \\
      --gin_file=robustness/cifar10_c.gin \\
      --gin_param="corruptions.arrays.root = '/data/CIFAR-10-C'" --output=compare.html
  python -m supcon_tf.evaluate --workdir=runs/supcon \\
      --gin_param="robustness.run.max_images = 1000" \\
      --gin_param="robustness.run.severities = (1, 3, 5)"
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.reporting import write_comparison, write_report
from supcon_tf.reporting.robustness import read_measured
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import robustness

# The numbers of the table: heading, key in metrics.json, and how it is written.
COLUMNS = (
    ("clean top-1", "clean_error", lambda value: f"{1 - value:.1%}"),
    ("corrupted top-1", "unnormalized_mean_error", lambda value: f"{1 - value:.1%}"),
    ("mCE", "mce", lambda value: f"{value:.1f}"),
    ("relative mCE", "relative_mce", lambda value: f"{value:.1f}"),
    ("clean ECE", "clean_calibration_error", lambda value: f"{value:.3f}"),
    ("corrupted ECE", "calibration_errors", lambda values: f"{sum(values) / len(values):.3f}"),
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(__doc__, prog="evaluate")
    parser.add_argument(
        "--workdir",
        action="append",
        default=[],
        metavar="DIR",
        help="a run's folder; may repeat, the page shows them in this order",
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="FILE",
        help="settings over the run's own, such as robustness/cifar10_c.gin; may repeat",
    )
    parser.add_argument(
        "--gin_param",
        action="append",
        default=[],
        metavar="BINDING",
        help='one setting, such as "robustness.run.max_images = 1000"; may repeat, wins over files',
    )
    parser.add_argument(
        "--output",
        metavar="FILE.html",
        help="the comparison, by default compare.html in the first --workdir",
    )
    options = parser.parse_args(arguments)
    if not options.workdir:
        parser.error("--workdir is needed: the folder of a finished run")
    folders = [RunDir(Path(workdir)) for workdir in options.workdir]
    if len({folder.root.resolve() for folder in folders}) < len(folders):
        parser.error("each --workdir must be another folder")
    for folder in folders:
        if not (folder.root / "config.gin").is_file():
            raise UserError(
                f"no run in {str(folder.root)!r}: python -m supcon_tf.train --workdir makes one"
            )
    for folder in folders:
        measure(folder, options.gin_file, options.gin_param)
    print(table(folders))
    output = Path(options.output) if options.output else folders[0].root / "compare.html"
    page = write_comparison([folder.root for folder in folders], output)
    print(f"done: {page}")


def measure(folder: RunDir, files: Sequence[str], bindings: Sequence[str]) -> None:
    """Runs the robustness stage of a run, unless it has finished with the same settings.

    Raises:
      UserError: no source of images, or as in `config.parse` and `robustness.run`.
    """
    settings = config.parse([str(folder.root / "config.gin"), *files], bindings)
    last = folder.root / "evaluate.gin"
    if (
        read_measured(folder.root) is not None
        and last.is_file()
        and config.is_same_measurement(last.read_text(), settings)
    ):
        print(f"{folder.root}: measured before")
        return
    if config.bound_value("robustness.run.source") is None:
        raise UserError(
            f"{str(folder.root)!r} says no source of images: add "
            '--gin_param="robustness.run.source = @sources.tfds()" or another one'
        )
    print(f"{folder.root}: measuring on {cli.DEVICES}")
    gin.get_configurable(robustness.run)(folder)
    (folder.root / "evaluate.gin").write_text(settings)
    write_report(folder.root)


def table(folders: Sequence[RunDir]) -> str:
    """A line per run; mCE where there is a baseline."""
    results = [folder.metrics()["robustness"] for folder in folders]
    shown = [column for column in COLUMNS if any(column[1] in result for result in results)]
    rows = [["run", *(heading for heading, _, _ in shown)]]
    for folder, result in zip(folders, results, strict=True):
        rows.append([str(folder.root), *(_written(result, key, how) for _, key, how in shown)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]) for row in rows
    )


def _written(result: dict[str, Any], key: str, how: Any) -> str:
    return how(result[key]) if key in result else "-"


if __name__ == "__main__":
    cli.run(main)
