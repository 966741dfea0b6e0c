"""A CSV file that names images and their labels, one or several each, as a source."""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from supcon_tf.data.image_files import split_of_files, unreadable_of
from supcon_tf.data.sources.base import Source, with_validation
from supcon_tf.data.splits import IndexedSplit, hold_out
from supcon_tf.errors import UserError

SPLITS = ("train", "test", "validation")


@dataclasses.dataclass(frozen=True)
class _Line:
    """An image of the table, as it is written there."""

    number: int
    path: str
    labels: tuple[str, ...]
    split: str


def table(
    file: str | None = None,
    *,
    root: str | None = None,
    separator: str = ";",
    multi_label: bool | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    unreadable_limit: float = 0.05,
    check_images: bool = True,
    seed: int = 0,
) -> Source:
    """A CSV file with an image a line, under the header `path,labels` or `path,labels,split`.

    Such as

        path,labels
        photos/1.jpg,dog;person
        photos/2.jpg,dog

    The split is train, test or validation. Without that column, a share is held out, the same for
    the same seed: see `splits.hold_out`. A label needs an image to train on, and may have none that
    is held out.

    Args:
      file: the CSV file, in UTF-8; without it there is an error that says how to set it.
      root: the folder that paths are relative to, by default the file's own.
      separator: between the labels of an image.
      multi_label: whether an image may have several labels; None is whether one has.
      test_share: to hold out where there is no column for the split.
      validation_share: of the training images to set aside, 0 for none.
      unreadable_limit, check_images: as in `sources.folder`.
      seed: of the choice of the held-out and the validation images.

    Raises:
      UserError: no such file, or an image in it that is not there.
      UserError: no file given, one that is not CSV in UTF-8, other columns, a line that cannot be
        used, an image twice, too few labels, a split or a label without images, or too many
        unreadable images.
    """
    if file is None:
        raise UserError(
            "which table of images? say --gin_param=\"sources.table.file = '/data/images.csv'\""
        )
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(
            f"no table {file!r}: point sources.table.file at a CSV file of the columns path,labels"
        )
    lines, has_splits = _lines(path, separator)
    base = path.parent if root is None else Path(root).expanduser()
    lines = [dataclasses.replace(line, path=str(base / line.path)) for line in lines]
    _check_files(file, lines)
    if check_images:
        unreadable = unreadable_of(
            [line.path for line in lines],
            unreadable_limit,
            setting="sources.table.unreadable_limit",
        )
        lines = [line for line in lines if line.path not in unreadable]
    if multi_label is None:
        multi_label = any(len(line.labels) > 1 for line in lines)
    names = _class_names(file, lines, multi_label, needed=1 if has_splits else 2)
    everything = _split(lines, names, multi_label)
    if not has_splits:
        kept, held_out = hold_out(everything.labels, test_share, seed=seed)
        train, test = everything.take(kept), everything.take(held_out)
        return with_validation(Source(path.stem, names, train, test), validation_share, seed)
    parts = {
        name: np.flatnonzero([line.split == name for line in lines]).astype(np.int64)
        for name in SPLITS
    }
    for name in ("train", "test"):
        if not parts[name].size:
            raise UserError(f"no image of {file!r} is in the split {name!r}: name some, or none")
    train, test, validation = (everything.take(parts[name]) for name in SPLITS)
    if not parts["validation"].size:
        return with_validation(Source(path.stem, names, train, test), validation_share, seed)
    if validation_share:
        raise UserError(
            f"{file!r} names its validation images: sources.table.validation_share must be 0, got "
            f"{validation_share}"
        )
    return Source(path.stem, names, train, test, validation)


def _lines(path: Path, separator: str) -> tuple[list[_Line], bool]:
    """The lines below the header, and whether they say a split."""
    try:
        # With or without the mark that spreadsheets put at the begin.
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            header = [name.strip() for name in next(reader, [])]
            numbered = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{str(path)!r} is not UTF-8 or not CSV ({error}): save it as CSV UTF-8"
        ) from error
    if sorted(header) not in (["labels", "path"], ["labels", "path", "split"]):
        raise UserError(
            f"the columns of {str(path)!r} must be path,labels or path,labels,split, got "
            f"{','.join(header) or 'an empty file'}"
        )
    lines = []
    for number, cells in numbered:
        where = f"line {number} of {str(path)!r}"
        if len(cells) != len(header):
            raise UserError(
                f"{where} has {len(cells)} columns, {len(header)} are needed: several labels "
                f"stand in one, with {separator!r} between them"
            )
        given = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        labels = tuple(label.strip() for label in given["labels"].split(separator))
        if not given["path"] or "" in labels:
            missing = "label" if given["path"] else "path"
            raise UserError(f"{where} lacks a {missing}, got {','.join(cells)!r}")
        split = given.get("split", "train")
        if split not in SPLITS:
            raise UserError(f"{where}: the split must be one of {SPLITS}, got {split!r}")
        lines.append(_Line(number, given["path"], labels, split))
    return lines, "split" in header


def _check_files(file: str, lines: Sequence[_Line]) -> None:
    """Every image is there, and once."""
    first_of: dict[str, int] = {}
    for line in lines:
        first = first_of.setdefault(os.path.normpath(line.path), line.number)
        if first != line.number:
            raise UserError(
                f"{line.path!r} stands in the lines {first} and {line.number} of {file!r}: name "
                "all its labels in one"
            )
        if not os.path.isfile(line.path):
            raise UserError(
                f"no image {line.path!r}, of line {line.number} of {file!r}: paths are relative to "
                "sources.table.root"
            )


def _class_names(
    file: str, lines: Sequence[_Line], multi_label: bool, *, needed: int
) -> tuple[str, ...]:
    """The labels in order, each with as many images to train on or to hold out as needed."""
    several = next((line for line in lines if len(line.labels) > 1), None)
    if several is not None and not multi_label:
        raise UserError(
            f"line {several.number} of {file!r} has {len(several.labels)} labels: set "
            "sources.table.multi_label = True, or leave one"
        )
    names = tuple(sorted({label for line in lines for label in line.labels}))
    if len(names) < 2:
        raise UserError(f"at least two labels are needed in {file!r}, got {names}")
    counts = Counter(label for line in lines if line.split == "train" for label in set(line.labels))
    for name in names:
        if counts[name] < needed:
            raise UserError(
                f"the label {name!r} of {file!r} has {counts[name]} images"
                f"{' to train on' if needed == 1 else ''}, {needed} needed: add some, or leave it "
                "out"
            )
    return names


def _split(lines: Sequence[_Line], names: tuple[str, ...], multi_label: bool) -> IndexedSplit:
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.zeros([len(lines), len(names)], np.int64)
    for row, line in zip(labels, lines, strict=True):
        row[[numbers[label] for label in line.labels]] = 1
    return split_of_files(
        [line.path for line in lines], labels if multi_label else labels.argmax(axis=1)
    )
