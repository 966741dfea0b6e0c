"""Trains, evaluates and exports what a gin file describes.

The run directory gets config.gin, metrics.json, report.html, checkpoints/, tensorboard/ and
export/ (a SavedModel). The same command again continues a run that was stopped.

examples:
  python -m supcon_tf.train --gin_file=digits/supcon.gin --workdir=/tmp/digits
  python -m supcon_tf.train --gin_file=folder/supcon.gin --workdir=/tmp/mine \\
      --gin_param="sources.folder.root = '/data/photos'" \\
      --gin_param="pretrain.run.epochs = 50"
  python -m supcon_tf.train --gin_file=cifar10/supcon_resnet18.gin --print_config
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import gin
from absl import flags

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _new_flags()
    cli.parse(options, argv, __doc__)
    if not options.gin_file:
        raise UserError("--gin_file is needed, such as --gin_file=digits/supcon.gin")
    devices = cli.start_tensorflow()
    foreign = config.foreign_modules(options.gin_file, options.gin_param)
    if foreign and options.print_config and not options.trust:
        raise UserError(
            f"--print_config does not import {foreign[0]!r}, whose code would run: add --trust"
        )
    settings = config.parse(options.gin_file, options.gin_param)
    if options.print_config:
        print(settings)
        return
    import tensorflow as tf

    # These import TensorFlow too.
    from supcon_tf import distribution, run_checks
    from supcon_tf.stages import experiment
    from supcon_tf.training import debug

    if foreign:
        print(f"the gin files import {', '.join(foreign)}, whose code runs")
    run_checks.check_stages(settings)
    if not options.workdir:
        raise UserError("--workdir is needed: the directory that the run writes to")
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    if options.debug:
        debug.enable()
    # Before TensorFlow's first operation: several workers need that.
    strategy = gin.get_configurable(distribution.strategy)()
    run_dir = RunDir(
        Path(options.workdir),
        is_chief=distribution.is_chief(strategy),
        keep_test_split=options.keep_test_split,
        metrics_only=options.metrics_only,
    )
    run_checks.check_encoder(run_dir)
    run_dir.root.mkdir(parents=True, exist_ok=True)
    with run_dir.lock():
        run_checks.prepare(run_dir, settings)
        replicas = strategy.num_replicas_in_sync
        print(
            f"{options.gin_file[-1]} on {devices}{f', {replicas} replicas' * (replicas > 1)}, "
            f"into {run_dir.root}"
        )
        gin.get_configurable(experiment.run)(run_dir, configured=gin.get_configurable)
        if run_dir.is_chief:
            run_checks.save_measured_settings(run_dir, settings)
            written = run_dir.metrics_file if options.metrics_only else run_checks.report(run_dir)
            print(", ".join(filter(None, [f"done: {written}", run_checks.accuracies(run_dir)])))


def _new_flags() -> flags.FlagValues:
    options = cli.new_flags()
    cli.define_gin_flags(options)
    flags.DEFINE_string("workdir", None, "DIR: the run directory", flag_values=options)
    flags.DEFINE_boolean(
        "print_config", False, "show all settings of the run and stop", flag_values=options
    )
    flags.DEFINE_boolean(
        "debug",
        False,
        "stop at the first operation whose result has NaN or infinity, and save the batch of that "
        "step; a run with a NaN loss continues from its last checkpoint up to there, slowly",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "deterministic",
        False,
        "the same numbers in each run on GPUs too, at some cost of speed; a CPU needs no flag",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "let --print_config import modules of other packages, whose code runs",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "keep_test_split",
        False,
        "continue on images that have changed: tests on the same ones and trains on new ones",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "metrics_only",
        False,
        "leave out pictures, export and report; the same command without this flag adds them",
        flag_values=options,
    )
    return options


run = functools.partial(cli.run, main)  # The console script supcon-train.

if __name__ == "__main__":
    run()
