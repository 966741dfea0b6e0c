"""Copies a run's trained model out of its run directory, as a SavedModel for serving.

The preprocessing is inside. Signature "serving_default" takes `images`, uint8 [B, H, W, 3];
"serving_jpeg" takes `encoded`, the contents of image files [B]. Both return `embedding`, and if the
model has them `projection`, or `logits`, `probabilities` and `label`, the number of a line of
labels.txt (if images may have several labels: `labels`, a row of 0 and 1). Loading the model needs
only TensorFlow.

example:
  python -m supcon_tf.export --workdir=/tmp/digits --output=/tmp/digits_model
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError
from supcon_tf.files import check_links
from supcon_tf.json_files import check_checksums
from supcon_tf.run_dir import RunDir


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: the run directory", flag_values=options)
    flags.DEFINE_string(
        "output", None, "DIR: a new directory for the SavedModel", flag_values=options
    )
    cli.parse(options, argv, __doc__)
    if not options.workdir or not options.output:
        raise UserError("--workdir and --output are needed: a run directory and a new directory")
    export = RunDir(Path(options.workdir)).export
    if not (export / "saved_model.pb").is_file():
        raise UserError(
            f"no trained model in {options.workdir!r}: a run writes it when its first stage ends, "
            "python -m supcon_tf.train with the same --workdir continues it"
        )
    check_checksums(export)
    check_links(export, within=export.parent, advice="put what it leads to in its place")
    output = Path(options.output)
    if output.resolve().is_relative_to(export.resolve()):
        raise UserError(f"{options.output!r} is inside of {str(export)!r}: give a new directory")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{options.output!r} is not empty: give a new directory")
    shutil.copytree(export, output, dirs_exist_ok=True)
    print(f"done: {output}")


if __name__ == "__main__":
    cli.run(main)
