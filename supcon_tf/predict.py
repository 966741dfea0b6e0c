"""Embeddings, and labels where the model classifies, of images with an exported model.

The output is an .npz file with `paths`, `embeddings`, and from a classifier `labels` and
`probabilities`, or a .csv or .parquet file with a row per image. If images may have several labels,
the labels are those with a probability of at least 0.5, separated by ";". An unreadable image is
reported and left out. Until the output is complete, the predictions so far are in OUTPUT.partial,
and they stay there if the command is stopped.

With --calibrated, the probabilities are scaled by one temperature, which the run fitted on its
validation split.

--projector=DIR also writes a map of the embeddings with pictures, for tensorboard --logdir=DIR.

With --index, there are also for each image its nearest neighbours in the index, whether the nearest
one is a match, and whether the image is unknown: docs/search.md lists the columns.

A model whose graph uses files, Python or the network is refused, unless --trust is given.

examples:
  python -m supcon_tf.predict --export=/tmp/digits_model --images=/data/photos --output=photos.npz
  python -m supcon_tf.predict --export=/tmp/digits_model --images a.jpg b.png --output=two.csv
  python -m supcon_tf.predict --export=/tmp/digits_model --index=/tmp/digits_index \\
      --images=/data/photos --output=photos.csv
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError
from supcon_tf.search import answers, class_warning, load_index


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _flags()
    more_images = cli.parse(options, argv, __doc__, takes_paths=True)
    for name in ("export", "images", "output"):
        if not options[name].value:
            raise UserError(f"--{name} is needed; --help shows all flags")
    output = Path(options.output)
    check_output(output)
    export = cli.existing_export(options.export)
    index = None
    if options.index is not None:
        index = load_index(options.index, export)
        if (warning := class_warning(index)) is not None:
            print(warning)
    cli.start_tensorflow()
    # These import TensorFlow.
    from supcon_tf.data.image_files import find_images
    from supcon_tf.evaluation.prediction import load_model, predictions
    from supcon_tf.evaluation.prediction_files import open_writer
    from supcon_tf.evaluation.projector_files import check_new_directory, open_projector
    from supcon_tf.evaluation.untrusted_model import check_untrusted_model

    if not options.trust:
        check_untrusted_model(export)
    if options.projector is not None:
        check_new_directory(Path(options.projector))
    paths = find_images([*options.images, *more_images])
    model = load_model(export, calibrated=options.calibrated)
    with contextlib.ExitStack() as stack:
        writers: list[Any] = [stack.enter_context(open_writer(output))]
        if options.projector is not None:
            opened = open_projector(Path(options.projector), max_images=len(paths))
            writers.append(stack.enter_context(opened))
        count = 0
        for read, outputs in predictions(model, paths, batch_size=options.batch_size):
            if index is not None:
                more = answers(index, outputs["embedding"], num_neighbors=options.num_neighbors)
                outputs = {**outputs, **more}
            for writer in writers:
                writer.add(read, outputs)
            count += len(read)
        if not count:
            raise UserError(f"none of the {len(paths)} images can be read, first {paths[0]!r}")
    left_out = f", {len(paths) - count} left out" * (count < len(paths))
    print(f"done: {count} images in {str(output)!r}{left_out}")


def _flags() -> flags.FlagValues:
    """All flags of the command."""
    options = cli.new_flags()
    flags.DEFINE_string("export", None, "DIR: a SavedModel of this package", flag_values=options)
    flags.DEFINE_multi_string(
        "images",
        [],
        "PATH ...: image files, and directories that are searched for them with all below",
        flag_values=options,
    )
    flags.DEFINE_string("output", None, "FILE.npz, FILE.csv or FILE.parquet", flag_values=options)
    flags.DEFINE_string(
        "index",
        None,
        "DIR: an index of the same model, from python -m supcon_tf.index",
        flag_values=options,
    )
    flags.DEFINE_string(
        "projector",
        None,
        "DIR: a new directory for TensorBoard's projector, with a small picture of each image",
        flag_values=options,
    )
    flags.DEFINE_integer(
        "num_neighbors",
        5,
        "images of the index for each image, 5 by default",
        lower_bound=1,
        flag_values=options,
    )
    flags.DEFINE_integer(
        "batch_size", 64, "images at a time, 64 by default", lower_bound=1, flag_values=options
    )
    flags.DEFINE_boolean(
        "calibrated",
        False,
        "scale the probabilities by the temperature that was fitted on the run's validation split",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "run a model that uses files, Python or the network: only one whose source you trust",
        flag_values=options,
    )
    return options


def check_output(output: Path) -> None:
    """Checks that the output can be written, before anything is computed.

    Raises:
      UserError: another suffix, a directory, or no permission.
    """
    if output.suffix not in (".npz", ".csv", ".parquet"):
        raise UserError(f"--output must end in .npz, .csv or .parquet, got {str(output)!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UserError(f"--output must be a file that can be written, got {str(output)!r}")


run = functools.partial(cli.run, main)  # The console script supcon-predict.

if __name__ == "__main__":
    run()
