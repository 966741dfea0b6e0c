"""Copies a run's trained model out of its run directory, for serving, in one of four formats.

The preprocessing is inside. Signature "serving_default" takes `images`, uint8 [B, H, W, 3], RGB of
any size; "serving_pixels" takes `pixels`, float32 [B, image_px, image_px, 3], already cropped,
resized and scaled, for accelerators that need a fixed size. Both return `embedding`, and if the
model has them `projection`, or `logits`, `probabilities` and `label`, the number of a line of
labels.txt (if images may have several labels: `labels`, a row of 0 and 1).

--format=tf_saved_model (default) also has "serving_jpeg", which takes `encoded`, the contents of
image files [B]. Loading it needs only TensorFlow.
--format=litert writes model.tflite with both signatures, for the LiteRT interpreter without
Select TF operations.
--format=onnx writes model.onnx for ONNX Runtime, --format=openvino model.xml and model.bin; each
has one signature, "serving_default" unless --signature is given.
Beside these files are labels.txt, model.json (inputs, outputs, and how to prepare pixels) and
prepare.py, which prepares pixels with NumPy. pip install '.[export]' for their packages.

With --index, the model also returns `unknown_score`, the Mahalanobis score of that index, and
`is_unknown`, whether it is above the threshold. calibration.json has the thresholds.

examples:
  python -m supcon_tf.export --workdir=/tmp/digits --output=/tmp/digits_model
  python -m supcon_tf.export --workdir=/tmp/digits --output=/tmp/digits_onnx --format=onnx
  python -m supcon_tf.export --workdir=/tmp/digits --output=/tmp/digits_phone --format=litert \\
      --quantize=int8
  python -m supcon_tf.export --workdir=/tmp/digits --output=/tmp/digits_model_2 \\
      --index=/tmp/digits_index
"""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError
from supcon_tf.exporting.formats import FORMATS, QUANTIZATIONS, SAVED_MODEL, check_options
from supcon_tf.run_dir import RunDir
from supcon_tf.search import Index, load_index

# Images with which int8 measures the ranges of the activations.
NUM_RANGE_IMAGES = 128


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _parsed(argv)
    run_dir, output = RunDir(Path(options.workdir)), Path(options.output)
    check_options(options.format, quantize=options.quantize, signature=options.signature)
    if options.index is not None and options.quantize != "none":
        raise UserError("--index is for --quantize=none only: the unknown score needs float32")
    if options.images and options.quantize != "int8":
        raise UserError("--images is for --quantize=int8 only: leave it out")
    export = cli.trained_export(options.workdir)
    if output.resolve().is_relative_to(export.resolve()):
        raise UserError(f"{options.output!r} is inside of {str(export)!r}: give a new directory")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{options.output!r} is not empty: give a new directory")
    index = None if options.index is None else calibrated_index(options.index, export)
    if options.format == SAVED_MODEL and index is None:
        shutil.copytree(export, output, dirs_exist_ok=True)
        print(f"done: {output}")
        return
    cli.start_tensorflow()
    # These import TensorFlow.
    from supcon_tf.evaluation.untrusted_model import check_untrusted_model
    from supcon_tf.exporting.write import write_model

    if not options.trust:
        check_untrusted_model(export)
    if index is not None and options.format == SAVED_MODEL:
        add_calibration(export, output, index)
        print(f"done: {output}")
        return
    images: Iterable[np.ndarray] = ()
    if options.quantize == "int8":
        images = list(range_images(run_dir, options.images, trust=options.trust))
    with tempfile.TemporaryDirectory() as folder:
        if index is not None:
            add_calibration(export, Path(folder) / "export", index)
            export = Path(folder) / "export"
        write_model(
            export,
            output,
            format=options.format,
            quantize=options.quantize,
            signature=options.signature,
            images=images,
        )
    print(f"done: {output / FORMATS[options.format].file}")


def _parsed(argv: Sequence[str] | None) -> flags.FlagValues:
    options = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: the run directory", flag_values=options)
    flags.DEFINE_string("output", None, "DIR: a new directory for the model", flag_values=options)
    flags.DEFINE_string(
        "format", SAVED_MODEL, f"{', '.join(FORMATS)} (the first by default)", flag_values=options
    )
    flags.DEFINE_string(
        "quantize",
        "none",
        f"{', '.join(QUANTIZATIONS)} (the first by default): float16 stores the weights in 16 "
        "bits (not tf_saved_model); int8 computes in 8 bits (litert)",
        flag_values=options,
    )
    flags.DEFINE_string(
        "signature",
        None,
        "serving_default (default: images of any size, preprocessing in the file) or "
        "serving_pixels (prepared pixels), for onnx and openvino",
        flag_values=options,
    )
    flags.DEFINE_string(
        "images",
        None,
        f"FOLDER: images for --quantize=int8, which runs the model on {NUM_RANGE_IMAGES} of them; "
        "by default the run's training images",
        flag_values=options,
    )
    flags.DEFINE_string(
        "index",
        None,
        "DIR: an index of this model, from python -m supcon_tf.index, for the unknown score",
        flag_values=options,
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "convert a model that uses files, Python or the network, and let the config.gin of the run "
        "call any Python code: only for runs whose source you trust",
        flag_values=options,
    )
    cli.parse(options, argv, __doc__)
    if not options.workdir or not options.output:
        raise UserError("--workdir and --output are needed: a run directory and a new directory")
    return options


def calibrated_index(folder: str, export: Path) -> Index:
    """An index of the model.

    Raises:
      UserError: no index, one of another model, one without a calibration, or with classes that
        were added or removed after it.
    """
    index = load_index(folder, export)
    if index.calibration is None:
        raise UserError(
            f"the index in {folder!r} has no calibration: build it by python -m supcon_tf.index, "
            "or call calibrate in Python"
        )
    if index.changed_classes:
        raise UserError(
            f"the class {index.changed_classes[0]!r} was added to the index in {folder!r} or "
            "removed from it after its calibration: call calibrate first, as docs/search.md shows"
        )
    return index


def add_calibration(export: Path, output: Path, index: Index) -> None:
    """Writes the SavedModel with the Mahalanobis score of a calibrated index."""
    from supcon_tf.exporting.unknown import add_unknown_score  # It imports TensorFlow.

    calibration = index.calibration
    assert calibration is not None
    threshold = calibration.thresholds["mahalanobis"]
    found = calibration.detection.get("mahalanobis")
    match = calibration.match
    add_unknown_score(
        export,
        output,
        means=calibration.statistics.means,
        whitening=calibration.statistics.whitening,
        threshold=threshold,
        calibration={
            "unknown_score": "mahalanobis",
            "unknown_threshold": threshold,
            "known_share": calibration.known_share,
            "num_images": calibration.num_images,
            "detection": None if found is None else dataclasses.asdict(found),
            "match": None if match is None else dataclasses.asdict(match),
            "model_checksum": index.model_checksum,
        },
    )
    print(f"unknown: mahalanobis score > {threshold:.4g}")


def range_images(run_dir: RunDir, folder: str | None, *, trust: bool) -> Iterator[np.ndarray]:
    """Images for int8: of a folder, or training images of the run.

    Yields:
      uint8 [H, W, 3], `NUM_RANGE_IMAGES` at most.

    Raises:
      UserError: no images there.
    """
    if folder is not None:
        from supcon_tf.data.image_files import find_images, read_image

        paths = find_images([folder])
        chosen = np.random.default_rng(0).permutation(len(paths))[:NUM_RANGE_IMAGES]
        yield from (read_image(paths[number]) for number in chosen)
        return
    from supcon_tf.run_source import run_source

    try:
        train = run_source(run_dir, trust=trust).train
    except (UserError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the run's images cannot be read, give --images=FOLDER: {reason}"
        ) from None
    count = min(NUM_RANGE_IMAGES, train.num_examples)
    for image, _ in train.shuffled(seed=0, start=0, stop=count).as_numpy_iterator():
        yield image


run = functools.partial(cli.run, main)  # The console script supcon-export.

if __name__ == "__main__":
    run()
