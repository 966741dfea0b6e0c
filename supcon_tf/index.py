"""Search index of the images of a folder, with an exported model.

The index holds the embedding, path and label of each image; labels are the class folders. Two
thresholds are calibrated: the similarity above which --precision of the nearest neighbours have the
right label, and the score above which an image is unknown, of no class of the index. Calibration
compares each fifth of the images with the others, or --calibration_images with all. Detection of
unknown images is measured on --unknown_images or --unknown_class. index.json has the results.

python -m supcon_tf.predict --index=INDEX uses the index. In Python: `supcon_tf.index.Index`.

examples:
  python -m supcon_tf.index --export=/tmp/digits_model --images=/data/photos --output=/tmp/index
  python -m supcon_tf.index --export=/tmp/digits_model --images=/data/photos/train \\
      --calibration_images=/data/photos/test --unknown_images=/data/others --output=/tmp/index
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError, check_number
from supcon_tf.search import Index, check_new_index, model_checksum, summary

__all__ = ["Index", "main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _flags()
    cli.parse(options, argv, __doc__)
    for name in ("export", "images", "output"):
        if not options[name].value:
            raise UserError(f"--{name} is needed; --help shows all flags")
    for name in ("precision", "known_share"):
        check_number(f"--{name}", options[name].value, above=0, at_most=1)
    if options.unknown_class and options.unknown_images:
        raise UserError("give --unknown_images or --unknown_class, not both")
    export = cli.existing_export(options.export)
    check_new_index(Path(options.output))
    cli.start_tensorflow()
    # These import TensorFlow.
    from supcon_tf.evaluation.prediction import load_model
    from supcon_tf.evaluation.untrusted_model import check_untrusted_model
    from supcon_tf.search.images import embed, find_files

    files_of = find_files(
        options.images,
        calibration_images=options.calibration_images,
        unknown_images=options.unknown_images,
        unknown_classes=options.unknown_class,
    )
    if not options.trust:
        check_untrusted_model(export)
    model = load_model(export)
    embedded = {
        flag: embed(model, flag, each, batch_size=options.batch_size)
        for flag, each in files_of.items()
    }
    known, others = embedded["--images"], embedded.get("--calibration_images")
    unknown = embedded.get("--unknown_images") or embedded.get("--unknown_class")
    index = Index(known.embeddings, known.paths, known.labels, approximate=options.approximate)
    index.model_checksum = model_checksum(export)
    index.calibrate(
        precision=options.precision,
        known_share=options.known_share,
        unknown_score=options.unknown_score,
        num_neighbors=options.num_neighbors,
        images=None if others is None else (others.embeddings, others.labels),
        unknown=None if unknown is None else unknown.embeddings,
        seed=options.seed,
    )
    index.save(options.output)
    num_classes = len(set(index.labels) - {""})
    of_classes = f" of {num_classes} class{'es' * (num_classes != 1)}" * bool(num_classes)
    print(summary(index), f"done: {len(index)} images{of_classes} in {options.output!r}", sep="\n")


def _flags() -> flags.FlagValues:
    """All flags of the command."""
    options = cli.new_flags()
    for name, text in (
        ("export", "DIR: a SavedModel of this package"),
        ("images", "DIR: class folders of images, or images without labels"),
        ("output", "DIR: a new directory for the index, or an index to replace"),
        (
            "calibration_images",
            "DIR: images like --images that the encoder was not trained on, to calibrate with",
        ),
        ("unknown_images", "DIR: images of other classes, to measure how well they are detected"),
    ):
        flags.DEFINE_string(name, None, text, flag_values=options)
    flags.DEFINE_multi_string(
        "unknown_class",
        [],
        "NAME: a class of --images that is left out of the index and measured as unknown",
        flag_values=options,
    )
    for name, default, text in (
        ("precision", 0.95, "wanted share of right labels among the matches, 0.95 by default"),
        ("known_share", 0.95, "share of known images not called unknown, 0.95 by default"),
    ):
        flags.DEFINE_float(name, default, text, flag_values=options)
    flags.DEFINE_enum(
        "unknown_score",
        "knn",
        ["knn", "mahalanobis"],
        "knn (default): distance to the k-th neighbour; mahalanobis: to the nearest class mean",
        flag_values=options,
    )
    flags.DEFINE_integer(
        "num_neighbors",
        None,
        "k of --unknown_score=knn, 10 by default and less where classes are small",
        lower_bound=1,
        flag_values=options,
    )
    flags.DEFINE_integer(
        "batch_size", 64, "images at a time, 64 by default", lower_bound=1, flag_values=options
    )
    flags.DEFINE_integer(
        "seed", 0, "chooses the fifths of each class", lower_bound=0, flag_values=options
    )
    flags.DEFINE_boolean(
        "approximate",
        None,
        "search by usearch instead of exactly; by default above 100,000 images",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "run a model that uses files, Python or the network: only one whose source you trust",
        flag_values=options,
    )
    return options


run = functools.partial(cli.run, main)  # The console script supcon-index.

if __name__ == "__main__":
    run()
