"""Embeddings, and labels where the model classifies, of images with an exported model.

The output is an .npz file with `paths`, `embeddings`, and from a classifier `labels` and
`probabilities`, or a .csv file with a row per image. The labels of an image that may have several
are those of a probability of at least 0.5, with ";" between them.

examples:
  python -m supcon_tf.predict --export=/tmp/digits_model --images=/data/photos --output=photos.npz
  python -m supcon_tf.predict --export=/tmp/digits_model --images a.jpg b.png --output=two.csv
"""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from supcon_tf import cli
from supcon_tf.errors import UserError

# The outputs of the model that are written.
OUTPUTS = ("embedding", "label", "labels", "probabilities")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = cli.new_flags()
    flags.DEFINE_string("export", None, "DIR: a SavedModel of this package", flag_values=options)
    flags.DEFINE_multi_string(
        "images",
        [],
        "PATH ...: image files, and directories that are searched for them with all below",
        flag_values=options,
    )
    flags.DEFINE_string("output", None, "FILE.npz or FILE.csv", flag_values=options)
    flags.DEFINE_integer(
        "batch_size", 64, "images at a time, 64 by default", lower_bound=1, flag_values=options
    )
    more_images = cli.parse(options, argv, __doc__, takes_paths=True)
    for name in ("export", "images", "output"):
        if not options[name].value:
            raise UserError(f"--{name} is needed; --help shows all flags")
    images = [*options.images, *more_images]
    output = Path(options.output)
    if output.suffix not in (".npz", ".csv"):
        raise UserError(f"--output must end in .npz or .csv, got {options.output!r}")
    if not (Path(options.export) / "saved_model.pb").is_file():
        raise UserError(
            f"no SavedModel in {options.export!r}: python -m supcon_tf.export makes one"
        )
    cli.start_tensorflow()
    paths = image_files(images)
    output.parent.mkdir(parents=True, exist_ok=True)
    written = output if output.exists() else output.parent
    if output.is_dir() or not os.access(written, os.W_OK):
        raise UserError(f"--output must be a file that can be written, got {options.output!r}")
    import tensorflow as tf

    model = tf.saved_model.load(options.export).signatures["serving_jpeg"]
    kept, outputs = predictions(model, paths, batch_size=options.batch_size)
    names_file = Path(options.export) / "labels.txt"
    if "label" in outputs:
        names = np.array(names_file.read_text(encoding="utf-8").splitlines())
        outputs["label"] = names[outputs["label"]]
    elif "labels" in outputs:
        names = np.array(names_file.read_text(encoding="utf-8").splitlines())
        outputs["labels"] = np.array([";".join(names[row > 0]) for row in outputs["labels"]])
    if output.suffix == ".npz":
        np.savez_compressed(output, allow_pickle=False, **_columns(kept, outputs))
    else:
        _write_csv(output, kept, outputs)
    print(f"done: {len(kept)} images in {output}")


def image_files(given: Sequence[str]) -> list[Path]:
    """The image files among the paths and in their folders, sorted within a folder.

    Raises:
      UserError: a path that is not there, or no image at all.
    """
    from supcon_tf.data.image_files import IMAGE_SUFFIXES  # It imports TensorFlow.

    files: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            found = path.rglob("*")
            named = (file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
            files += sorted(file for file in named if not file.is_dir())
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no image or folder {name!r}")
    if not files:
        raise UserError(f"no image in {', '.join(given)}: looked for {', '.join(IMAGE_SUFFIXES)}")
    return files


def predictions(
    model: Any, paths: Sequence[Path], *, batch_size: int
) -> tuple[list[Path], dict[str, np.ndarray]]:
    """Runs the model over image files, leaving out and naming those that cannot be read.

    Args:
      model: the "serving_jpeg" signature.
      paths: of the images.
      batch_size: images at a time.

    Returns:
      The files that could be read, and the model's outputs for them.

    Raises:
      UserError: none could be read.
    """
    kept: list[Path] = []
    parts: list[dict[str, np.ndarray]] = []
    bar = tqdm(total=len(paths), desc="predicting", unit="image", leave=False, disable=None)
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        for read, outputs in _readable_parts(model, chunk):
            kept += read
            parts.append(outputs)
        bar.update(len(chunk))
    bar.close()
    if not kept:
        raise UserError(f"none of the {len(paths)} images can be read, first {str(paths[0])!r}")
    return kept, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _readable_parts(
    model: Any, paths: Sequence[Path]
) -> Iterator[tuple[Sequence[Path], dict[str, np.ndarray]]]:
    """The whole batch at once, or one by one where an image in it cannot be read."""
    import tensorflow as tf

    try:
        encoded = tf.constant([path.read_bytes() for path in paths])
        outputs = model(encoded=encoded)
        yield paths, {name: outputs[name].numpy() for name in OUTPUTS if name in outputs}
    except (tf.errors.InvalidArgumentError, OSError):
        if len(paths) == 1:
            print(f"left out {paths[0]}: it cannot be read as an image", file=sys.stderr)
            return
        for path in paths:
            yield from _readable_parts(model, [path])


def _columns(paths: Sequence[Path], outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    plural = {"embedding": "embeddings", "label": "labels"}
    named = {plural.get(name, name): values for name, values in outputs.items()}
    return {"paths": np.array([str(path) for path in paths]), **named}


def _write_csv(file: Path, paths: Sequence[Path], outputs: dict[str, np.ndarray]) -> None:
    has_label, has_labels = "label" in outputs, "labels" in outputs
    dim = outputs["embedding"].shape[1]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        header = ["path", *(["label", "probability"] if has_label else [])]
        header += ["labels"] if has_labels else []
        writer.writerow([*header, *(f"embedding_{number}" for number in range(dim))])
        for row, path in enumerate(paths):
            said: list[Any] = []
            if has_label:
                said = [outputs["label"][row], outputs["probabilities"][row].max()]
            elif has_labels:
                said = [outputs["labels"][row]]
            writer.writerow([path, *said, *outputs["embedding"][row]])


if __name__ == "__main__":
    cli.run(main)
