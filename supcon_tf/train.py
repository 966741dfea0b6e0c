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

import inspect
from collections.abc import Sequence
from pathlib import Path

import gin

from supcon_tf import cli, config, distribution
from supcon_tf.errors import UserError
from supcon_tf.reporting import write_report
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.stages.linear import encoder_file


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.Parser(__doc__, prog="train")
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
    settings = config.parse(options.gin_file, options.gin_param)
    if options.print_config:
        print(settings)
        return
    check_stages()
    if not options.workdir:
        parser.error("--workdir is needed: the folder that the run writes to")
    # Before the first operation, as workers need it.
    strategy = gin.get_configurable(distribution.strategy)()
    folder = RunDir(Path(options.workdir), is_chief=distribution.is_chief(strategy))
    check_encoder(folder)
    claim(folder, settings)
    replicas = strategy.num_replicas_in_sync
    print(
        f"{options.gin_file[-1]} on {cli.DEVICES}{f', {replicas} replicas' * (replicas > 1)}, "
        f"into {folder.root}"
    )
    measured = folder.root / "evaluate.gin"
    measures = "robustness" in (*named_stages(), *named_evaluations())
    if measures and not (
        measured.is_file() and config.is_same_measurement(measured.read_text(), settings)
    ):
        folder.remove_metrics("robustness")  # The cells that were measured alike stay.
    gin.get_configurable(experiment.run)(folder, configured=gin.get_configurable)
    if folder.is_chief:
        if measures:
            measured.write_text(settings)
        print(f"done: {write_report(folder.root)}")


def check_encoder(folder: RunDir) -> None:
    """Finds that stages on top of an encoder have none, before they load their images.

    Raises:
      UserError: no encoder where one should be.
    """
    stages = named_stages()
    for stage in {"linear", "finetune"}.intersection(stages) - folder.metrics().keys():
        given = config.bound_value(f"{stage}.run.encoder")
        if given is not None or "pretrain" not in stages:
            encoder_file(given or folder.root)


def named_stages() -> Sequence[str]:
    """What experiment.run.stages was set to, or its default."""
    default = inspect.signature(experiment.run).parameters["stages"].default
    return config.bound_value("experiment.run.stages") or default


def named_evaluations() -> Sequence[str]:
    """What experiment.run.evaluations was set to."""
    return config.bound_value("experiment.run.evaluations") or ()


def check_stages() -> None:
    """Finds what a later stage lacks before the first one runs.

    Raises:
      UserError: a stage's argument that is not set, or a number that cannot be.
    """
    least = {"epochs": 1, "batch_size": 1, "seed": 0}
    # What is not a stage is refused by `experiment.run`.
    for stage in filter(experiment.STAGES.get, (*named_stages(), *named_evaluations())):
        for parameter in inspect.signature(experiment.STAGES[stage]).parameters.values():
            name = f"{stage}.run.{parameter.name}"
            value = config.bound_value(name)
            is_needed = parameter.default is parameter.empty and parameter.name != "folder"
            if value is None and is_needed:
                raise UserError(f'{name} is not set: add --gin_param="{name} = ..."')
            if isinstance(value, int) and value < least.get(parameter.name, value):
                raise UserError(f"{name} must be >= {least[parameter.name]}, got {value}")


def claim(folder: RunDir, settings: str) -> None:
    """Makes the folder this configuration's own.

    The settings of stages that have not begun may change, and stages may be added.

    Raises:
      UserError: the folder holds a run of another configuration.
    """
    file = folder.root / "config.gin"
    folder.root.mkdir(parents=True, exist_ok=True)
    begun = folder.started_stages()
    if not folder.is_chief:
        return
    if not begun:
        folder.remove_partial_files()
    elif file.exists():
        _refuse_changes(folder, begun, file.read_text(), settings)
    file.write_text(settings)


def _refuse_changes(folder: RunDir, begun: set[str], before: str, after: str) -> None:
    """Names the first setting that may not change any more, if one did.

    Those of the robustness stage always may: it measures anew what it measured with others.
    """
    old, new = (config.parameter_values(text, macros=True) for text in (before, after))
    to_come = experiment.STAGES.keys() - begun | {"robustness"}
    free = [f"{stage}{mark}" for stage in to_come for mark in "./"]
    free += ["experiment.run.", "corruptions.", "classifiers."]
    # What has come to the program since then has its default, which is what was done before.
    added = new.keys() - old.keys() - config.parameter_values(after, defaults=False).keys()
    for name in sorted((old.keys() | new.keys()) - added):
        if old.get(name) != new.get(name) and not name.startswith(tuple(free)):
            raise UserError(
                f"{str(folder.root)!r} holds a run with other settings, {name} = {old.get(name)} "
                f"instead of {new.get(name)}: give another --workdir, or go on with the same "
                "settings"
            )


if __name__ == "__main__":
    cli.run(main)
