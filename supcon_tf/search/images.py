"""Embeddings of image files by an exported model, for an index."""

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from supcon_tf.data.image_files import find_images
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
    layout = find_layout(Path(root), labelled=None, for_training=False)
    return {
        path: label
        for split in layout.files.values()
        for label, paths in split.items()
        for path in paths
    }


def find_files(
    images: str,
    *,
    calibration_images: str | None = None,
    unknown_images: str | None = None,
    unknown_classes: Sequence[str] = (),
) -> dict[str, dict[str, str]]:
    """The image files of the flags of `python -m supcon_tf.index`.

    Args:
      images, calibration_images: folders as `labelled_files` takes them.
      unknown_images: a folder that is searched for images.
      unknown_classes: classes of the other folders that are unknown images.

    Returns:
      Flag -> path -> label ("" for none), for each flag that has images.

    Raises:
      UserError: as in `split_classes`, `check_classes` and `check_disjoint`.
    """
    known, unknown = split_classes(labelled_files(images), unknown_classes)
    files_of = {"--images": known}
    if calibration_images:
        labelled = labelled_files(calibration_images)
        files = {path: label for path, label in labelled.items() if label not in unknown_classes}
        check_classes(files, known)
        files_of["--calibration_images"] = files
    if unknown_images:
        files_of["--unknown_images"] = dict.fromkeys(find_images([unknown_images]), "")
    elif unknown:
        files_of["--unknown_class"] = unknown
    check_disjoint(files_of)
    return files_of


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


def check_disjoint(files_of: Mapping[str, Iterable[str]]) -> None:
    """Checks that no two flags have one image, also by a link or as a copy of equal bytes.

    An image of the index that is also a calibration image would be its own nearest neighbour.
    Copies within a flag are counted in a line: they are neighbours of each other.

    Args:
      files_of: flag -> paths of its images.

    Raises:
      UserError: names an image that two flags have.
    """
    by_size: dict[int, list[tuple[str, str]]] = {}
    for flag, files in files_of.items():
        for path in files:
            with contextlib.suppress(OSError):  # Unreadable images are left out later.
                by_size.setdefault(os.path.getsize(path), []).append((flag, path))
    by_size.pop(0, None)
    candidates = [
        each for same_size in by_size.values() if len(same_size) > 1 for each in same_size
    ]
    first_of: dict[str, tuple[str, str]] = {}
    copies: dict[str, list[tuple[str, str]]] = {}
    for flag, path in tqdm(candidates, "comparing files", unit="file", leave=False, disable=None):
        try:
            checksum = sha256(Path(path))
        except OSError:
            continue
        first_flag, first = first_of.setdefault(checksum, (flag, path))
        if first_flag != flag:
            name = "it" if path == first else repr(first)
            raise UserError(
                f"{flag} has {path!r} and {first_flag} has {name}, the same image: leave it out of "
                f"{flag} or of {first_flag}"
            )
        if path != first:
            copies.setdefault(flag, []).append((path, first))
    for flag, pairs in copies.items():
        print(
            f"warning: {flag} has {len(pairs)} copies, such as {pairs[0][0]!r} of {pairs[0][1]!r}, "
            "so the measures look better than they are: remove copies"
        )


def check_classes(files: dict[str, str], indexed: dict[str, str]) -> None:
    """Checks that the index has the classes of calibration images; names classes without any.

    Args:
      files: path -> label ("" for none) of the calibration images.
      indexed: path -> label of the images of the index.

    Raises:
      UserError: no images, a class that the index does not have, or only one of both has labels.
    """
    if not files:
        raise UserError(
            "--calibration_images has only classes that --unknown_class leaves out: add images of "
            "the other classes"
        )
    has_labels, index_has_labels = any(files.values()), any(indexed.values())
    if index_has_labels and not has_labels:
        raise UserError(
            "--calibration_images has no class folders, so that no match can be checked: put its "
            "images into class folders named as those of --images"
        )
    if has_labels and not index_has_labels:
        raise UserError(
            "--calibration_images has class folders and --images has none: put the images of "
            "--images into class folders too"
        )
    known = set(indexed.values()) - {""}
    missing = sorted(set(files.values()) - {""} - known)
    if missing:
        lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(missing[0].lower(), lower, n=1, cutoff=0.8)
        raise UserError(
            f"--calibration_images has the class {missing[0]!r}, which the index does not have: "
            + (f"did you mean {lower[near[0]]!r}? Else " if near else "")
            + "leave it out, or give its images as --unknown_images"
        )
    if without := sorted(known - set(files.values())):
        print(
            f"warning: {len(without)} of {len(known)} classes have no calibration images, such as "
            f"{without[0]!r}: the thresholds may not hold for them"
        )


def embed(model: Model, flag: str, files: dict[str, str], *, batch_size: int) -> EmbeddedImages:
    """Embeds image files; reports unreadable ones and leaves them out.

    Args:
      model: from `load_model`.
      flag: names the files in messages.
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
        raise UserError(f"no image of {flag} can be read, first {next(iter(files))!r}")
    if len(read) < len(files):
        print(f"{flag}: {len(files) - len(read)} of {len(files)} images are left out")
    return EmbeddedImages(np.concatenate(embeddings), read, [files[path] for path in read])
