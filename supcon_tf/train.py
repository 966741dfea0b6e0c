"""Trains, evaluates and exports what a gin file describes.

The run's folder gets config.gin, metrics.json, report.html, checkpoints/, tensorboard/ and
export/ (a SavedModel). The same command again goes on where a killed run stopped.

examples:
  python -m supcon_tf.train --gin_file=digits/supcon.gin --workdir=/tmp/digits
  python -m supcon_tf.train --gin_file=folder/supcon.gin --workdir=/tmp/mine \\
      --gin_param="sources.folder.root = '/data/photos'" \\
      --gin_param="pretrain.run.epochs = 50"
  python -m supcon_tf.train --gin_file=cifar10/supcon_resnet18.gin --print_config
"""

from pathlib import Path

import gin

from supcon_tf import command, configuration
from supcon_tf.reporting import write_report
from supcon_tf.stages import experiment
from supcon_tf.stages.run_folder import RunFolder


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = command.Parser(__doc__, prog="train")
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="FILE",
        help="what to run: a path, or the name of a shipped file; may repeat, later ones win",
    )
    parser.add_argument(
        "--gin_param",
        action="append",
        default=[],
        metavar="BINDING",
        help='one setting, such as "losses.SupConLoss.temperature = 0.2"; may repeat, wins '
        "over the files",
    )
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--print_config", action="store_true", help="show all settings of the run and stop"
    )
    options = parser.parse_args(arguments)
    if not options.gin_file:
        parser.error("--gin_file is needed, such as --gin_file=digits/supcon.gin")
    settings = configuration.parse(options.gin_file, options.gin_param)
    if options.print_config:
        print(settings)
        return
    if not options.workdir:
        parser.error("--workdir is needed: the folder that the run writes to")
    folder = RunFolder(Path(options.workdir))
    claim(folder, settings)
    print(f"{options.gin_file[-1]} on {command.DEVICES}, into {folder.root}")
    gin.get_configurable(experiment.run)(folder, configured=gin.get_configurable)
    report = write_report(folder.root)
    print(f"done: {report}")


def claim(folder: RunFolder, settings: str) -> None:
    """Makes the folder this configuration's own.

    Raises:
      ValueError: the folder holds a run of another configuration.
    """
    file = folder.root / "config.gin"
    has_begun = (folder.root / "checkpoints").exists()
    if has_begun and file.exists() and file.read_text() != settings:
        changed = sorted(set(file.read_text().splitlines()) ^ set(settings.splitlines()))
        raise ValueError(
            f"{str(folder.root)!r} holds a run with other settings, first "
            f"{changed[0].strip()!r}: give another --workdir, or go on with the same settings"
        )
    folder.root.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)


if __name__ == "__main__":
    command.run(main)
