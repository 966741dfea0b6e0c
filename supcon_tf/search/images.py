"""Embeddings of image files by an exported model, for an index."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from supcon_tf.data.sources.layouts import find_layout
from supcon_tf.errors import UserError
from supcon_tf.evaluation.prediction import Model, predictions
from supcon_tf.files import expanded
from supcon_tf.json_files import sha256


@dataclasses.dataclass(frozen=True)
class EmbeddedImages:
    """Images that could be read.

    Args:
      embeddings: float32 [n, D].
      paths: [n].
      labels: [n]; "" for no label.
    """

    embeddings: np.ndarray
    paths: list[str]
    labels: list[str]


def labelled_files(folder: str) -> dict[str, str]:
    """Path -> label ("" for none) of the images of all splits of a folder: see `find_layout`.

    Raises:
      UserError: no such folder, or no known layout.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise UserError(f"no folder {folder!r}")
    layout = find_layout(Path(root), labelled=None, trains=False)
    return {
        path: label
        for split in layout.files.values()
        for label, paths in split.items()
        for path in paths
    }


def split_classes(
    files: dict[str, str], left_out: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The files of all classes but those left out, and those of the latter.

    Raises:
      UserError: a class that no file has, or no other class.
    """
    classes = set(files.values()) - {""}
    for name in left_out:
        if name not in classes:
            known = ", ".join(repr(each) for each in sorted(classes)[:10])
            raise UserError(f"no class {name!r} to leave out, the first classes are {known}")
    if classes and classes <= set(left_out):
        raise UserError("all classes are left out: leave at least one in the index")
    kept = {path: label for path, label in files.items() if label not in left_out}
    return kept, {path: label for path, label in files.items() if label in left_out}


def check_not_indexed(flag: str, files: Iterable[str], indexed: Iterable[str]) -> None:
    """Checks that the files of a flag are not in the index, where each is its own neighbour.

    Raises:
      UserError: names a file of the flag that is in the index, also by a link or a copy.
    """
    images = {os.path.realpath(path): path for path in indexed}
    sizes: dict[int, list[str]] = {}
    for path in files:
        if (same := images.get(os.path.realpath(path))) is not None:
            raise UserError(_indexed(flag, path, same))
        sizes.setdefault(os.path.getsize(path), []).append(path)
    # Only files of equal size can be copies, so few are read.
    checksums: dict[int, dict[str, str]] = {}
    for path in images.values():
        size = os.path.getsize(path)
        if size not in sizes:
            continue
        if size not in checksums:
            checksums[size] = {sha256(Path(copy)): copy for copy in sizes[size]}
        if (copy := checksums[size].get(sha256(Path(path)))) is not None:
            raise UserError(_indexed(flag, copy, path))


def _indexed(flag: str, path: str, same: str) -> str:
    equal = "" if path == same else f" as {same!r}"
    return f"{flag} has {path!r}, which is also in the index{equal}: leave it out of one of them"


def check_classes(files: dict[str, str], indexed: dict[str, str]) -> None:
    """Checks that the index has the classes of calibration images.

    Args:
      files: path -> label ("" for none) of the calibration images.
      indexed: path -> label of the images of the index.

    Raises:
      UserError: names a class that the index does not have, or only one of both has labels.
    """
    has_labels, index_has_labels = any(files.values()), any(indexed.values())
    if files and has_labels != index_has_labels:
        raise UserError(
            "--calibration_images has no class folders, so that no match can be checked: give it "
            "those of --images"
            if index_has_labels
            else "--calibration_images has class folders, and --images has none: give both the "
            "same layout"
        )
    missing = sorted(set(files.values()) - {"", *indexed.values()})
    if missing:
        raise UserError(
            f"--calibration_images has the class {missing[0]!r}, which the index does not have: "
            "leave it out, or give its images as --unknown_images"
        )


def embed(model: Model, files: dict[str, str], *, batch_size: int) -> EmbeddedImages:
    """Embeds image files; reports unreadable ones and leaves them out.

    Args:
      model: from `load_model`.
      files: path -> label.
      batch_size: images at a time.

    Raises:
      UserError: no image can be read.
    """
    embeddings: list[np.ndarray] = []
    read: list[str] = []
    for paths, outputs in predictions(model, list(files), batch_size=batch_size):
        embeddings.append(outputs["embedding"])
        read += paths
    if not read:
        raise UserError(f"none of the {len(files)} images can be read, first {next(iter(files))!r}")
    return EmbeddedImages(np.concatenate(embeddings), read, [files[path] for path in read])
