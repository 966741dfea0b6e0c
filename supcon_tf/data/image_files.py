"""Finds image files, checks them before a run, and reads them."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.class_names import check_class_name
from supcon_tf.data.decode import decode
from supcon_tf.data.image_formats import (
    HEADER_BYTES,
    IMAGE_SUFFIXES,
    TENSORFLOW_SUFFIXES,
    Decoder,
    decoder_of,
    read_encoded,
    read_with_decoder,
)
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError

# Suffixes of data sets that were not extracted.
_ARCHIVES = (".tar", ".zip", ".tgz", ".gz", ".7z", ".rar")


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The image files among these paths and in their folders, subfolders and linked folders.

    Files in folders are sorted; hidden ones are skipped; files that are not images are counted in
    one line.

    Raises:
      UserError: a path that does not exist or is neither file nor folder, no image, or a single
        path in place of a list.
    """
    if isinstance(paths, str | bytes | os.PathLike):
        raise UserError(f"images must be a list of paths, got {paths!r}: put it into [ ]")
    found: list[str] = []
    left_out = LeftOut()
    for path in [os.fsdecode(path) for path in paths]:
        if "\0" in path:
            raise UserError(f"a path must not have NUL characters, got {path!r}")
        if os.path.isdir(path):
            found += images_below(path, left_out)
        elif os.path.isfile(path):
            found.append(path)
        elif os.path.lexists(path):
            raise UserError(f"{path!r} is neither a regular file nor a folder")
        else:
            raise UserError(f"no image or folder {path!r}")
    left_out.report()
    if not found:
        raise UserError(f"no image in {', '.join(repr(os.fspath(path)) for path in paths)}")
    return found


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The pixels of an image file, upright RGB: uint8 [H, W, 3].

    Raises:
      UserError: a file that cannot be read as an image.
    """
    return _decoded(path, read_encoded(path))


def _decoded(path: str | os.PathLike[str], encoded: bytes) -> np.ndarray:
    try:
        return decode(tf.constant(encoded)).numpy()
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message.splitlines()[0])
        raise UserError(f"cannot read {os.fspath(path)!r} as an image: {reason}") from None


class LeftOut:
    """Files and folders that are not read, counted to be reported in one line."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, kind: str, path: str) -> None:
        """Counts a file or folder of this kind, such as ".txt"."""
        self.counts[kind] += 1
        self.first.setdefault(kind, path)

    def report(self) -> None:
        """Prints what was left out, if anything."""
        if self.counts:
            parts = [
                f"{count} {kind} (first {self.first[kind]!r})"
                for kind, count in self.counts.most_common()
            ]
            tqdm.write(f"left out: {', '.join(parts)}; convert other image formats to JPEG or PNG")


def scan(folder: str, left_out: LeftOut) -> tuple[list[str], list[str]]:
    """The image files and the subfolders of a folder, sorted and without hidden ones.

    A file without a known suffix is an image if its first bytes are those of an image.
    """
    images: list[str] = []
    subfolders: list[str] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder!r}: {error.strerror}") from None
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            continue
        # os.path gives False for a link to itself, where the entry's own methods raise.
        if os.path.isdir(entry.path):
            subfolders.append(entry.path)
        elif not os.path.isfile(entry.path):
            left_out.add("FIFOs, devices or broken links", entry.path)
        elif suffix in IMAGE_SUFFIXES or _has_image_header(entry.path):
            images.append(entry.path)
        else:
            kind = suffix if suffix.isprintable() else repr(suffix)
            left_out.add(f"{kind} files" if suffix else "files without a suffix", entry.path)
    return images, subfolders


def images_below(folder: str, left_out: LeftOut, parents: tuple[str, ...] = ()) -> Iterator[str]:
    """The image files of a folder and its subfolders. Follows links, but not in a circle."""
    here = os.path.realpath(folder)
    if here in parents:
        return
    images, subfolders = scan(folder, left_out)
    yield from images
    for subfolder in subfolders:
        yield from images_below(subfolder, left_out, (*parents, here))


def images_by_class(root: Path, *, hint: str = "", min_classes: int = 2) -> dict[str, list[str]]:
    """The image files in each class folder, sorted.

    The images may also be one level down, in class/images, as in Tiny ImageNet.

    Args:
      root: the folder of the class folders.
      hint: added to the message about too few class folders.
      min_classes: lowest number of class folders, 1 or 2. Defaults to 2.

    Raises:
      UserError: too few class folders, one without images, two that are one by a link, or
        a class name that is not a line of UTF-8.
    """
    left_out = LeftOut()
    beside, folders = scan(str(root), left_out)
    for path in beside:
        left_out.add("images beside the class folders", path)
    if not folders and not beside and min_classes == 1:
        raise UserError(f"no images in {str(root)!r}{_advice(folders, left_out)}")
    # One folder beside images is more likely a part of them than a class.
    if len(folders) < min_classes or (len(folders) == 1 and beside):
        raise UserError(
            f"at least two class folders are needed in {str(root)!r}, found "
            f"{f'only {os.path.basename(folders[0])!r}' if folders else 'none'}: put the images of "
            f"each class in a folder{hint}{_advice(folders, left_out)}"
        )
    check_different(folders)
    files = {os.path.basename(folder): _images_of_class(folder, left_out) for folder in folders}
    left_out.report()
    return files


def check_different(folders: Sequence[str]) -> None:
    """Raises a UserError if two folders are one, by a link."""
    first_of: dict[str, str] = {}
    for folder in folders:
        first = first_of.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            raise UserError(f"{first!r} and {folder!r} are the same folder, by a link: leave one")


def _images_of_class(folder: str, left_out: LeftOut) -> list[str]:
    check_class_name(os.path.basename(folder))
    images, subfolders = scan(folder, left_out)
    if not images and [os.path.basename(path) for path in subfolders] == ["images"]:
        images, subfolders = scan(subfolders[0], left_out)
    if not images:
        raise UserError(
            f"the class folder {folder!r} has no images ({', '.join(IMAGE_SUFFIXES)}): add "
            "some, move up those in its subfolders, or remove it"
        )
    for path in subfolders:
        left_out.add("folders within class folders", path)
    return images


def _advice(folders: list[str], left_out: LeftOut) -> str:
    """What to do about a folder in a folder, or an archive that is not extracted."""
    if folders and scan(folders[0], LeftOut())[1]:
        return f"; did you mean {folders[0]!r}?"
    archives = [kind for kind in left_out.first if kind.startswith(_ARCHIVES)]
    return f"; extract {left_out.first[archives[0]]!r}" if archives else ""


@dataclasses.dataclass(frozen=True)
class ImageCheck:
    """Which image files cannot be read, and which TensorFlow does not decode."""

    unreadable: frozenset[str] = frozenset()
    converted: frozenset[str] = frozenset()


def check_readable(paths: Sequence[str], limit: float, *, setting: str) -> ImageCheck:
    """Decodes every image once; counts and reports unreadable ones.

    Args:
      paths: paths of the images.
      limit: largest share of unreadable images.
      setting: gin name of the limit.

    Raises:
      UserError: a larger share of unreadable images.
    """
    if not paths:
        return ImageCheck()
    with ThreadPoolExecutor() as threads:
        progress = tqdm(
            threads.map(_working_decoder, paths),
            desc="checking images",
            total=len(paths),
            unit="image",
            leave=False,
            disable=None,
        )
        decoders = dict(zip(paths, progress, strict=True))
    unreadable = frozenset(path for path, decoder in decoders.items() if decoder is None)
    if len(unreadable) > limit * len(paths):
        raise UserError(
            f"{len(unreadable)} of {len(paths)} images cannot be read, first "
            f"{min(unreadable)!r}: repair or remove them, or raise {setting}"
        )
    if unreadable:
        tqdm.write(
            f"left out {len(unreadable)} of {len(paths)} images that cannot be read: "
            + ", ".join(map(repr, sorted(unreadable)[:5]))
            + (", ..." if len(unreadable) > 5 else "")
        )
    return ImageCheck(
        unreadable, frozenset(path for path, decoder in decoders.items() if decoder == "pillow")
    )


def split_of_files(
    paths: Sequence[str], labels: np.ndarray, check: ImageCheck | None = None
) -> IndexedSplit:
    """A split that reads these files, in this order.

    Args:
      paths: paths of the images. Names that are not UTF-8 are read too.
      labels: int64 [n] or [n, C].
      check: of these files, if they were checked. Otherwise the suffix decides which may have to
        be converted.
    """
    all_paths = tf.constant([os.fsencode(path) for path in paths], tf.string)
    if check is None:
        converts = [not path.lower().endswith(TENSORFLOW_SUFFIXES) for path in paths]
    else:
        converts = [path in check.converted for path in paths]

    def read(number: tf.Tensor) -> tf.Tensor:
        return tf.io.read_file(tf.gather(all_paths, number))

    def read_or_convert(number: tf.Tensor) -> tf.Tensor:
        def convert() -> tf.Tensor:
            path = tf.gather(all_paths, number)
            return tf.numpy_function(_read_bytes_path, [path], tf.string, stateful=False)

        encoded = tf.cond(tf.gather(converts, number), convert, lambda: read(number))
        return tf.ensure_shape(encoded, [])

    # One operation per image, where TensorFlow decodes them all.
    return IndexedSplit(labels, read_or_convert if any(converts) else read, tuple(paths))


def _read_bytes_path(path: bytes) -> bytes:
    return read_encoded(os.fsdecode(path))


def _working_decoder(path: str) -> Decoder | None:
    """The library that decodes this file; None if it fails."""
    try:
        encoded, decoder = read_with_decoder(path)
        return decoder if _decoded(path, encoded).size else None
    except UserError:
        return None


def _has_image_header(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return decoder_of(file.read(HEADER_BYTES)) is not None
    except OSError:
        return False
