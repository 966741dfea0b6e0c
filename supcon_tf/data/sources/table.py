"""A CSV file of images and their labels as a source."""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from supcon_tf.data.image_files import ImageCheck, check_readable, split_of_files
from supcon_tf.data.sources.base import Source, split_off_test, with_validation
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError, check_flag, check_integer, check_number, check_text
from supcon_tf.files import expanded

SPLITS = ("train", "test", "validation")


@dataclasses.dataclass(frozen=True)
class _Line:
    """One image of the table. `labels` is () in a table without labels."""

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
    """A CSV file with one image per line, under a header of path, labels and split.

    For example

        path,labels
        photos/1.jpg,dog;person
        photos/2.jpg,dog

    The optional column `split` holds train, test or validation; without it, the splits are chosen
    by the paths, so that adding images moves none.
    Without the column `labels` the images have no labels. Each label needs a training image.

    Args:
      file: the CSV file, in UTF-8. Required; None for an error that says how to set it.
      root: folder that paths are relative to; None for the folder of the file.
      separator: text between the labels of an image.
      multi_label: whether an image may have several labels; None to see from the file.
      test_share: share of each label for the test split, where there is no column for it.
      validation_share: share of the training images for the validation split; 0 for none.
      unreadable_limit: largest share of unreadable images, which are reported and left out.
      check_images: decode every image once at the start, so that no unreadable one stops a run
        later.
      seed: seed of the random test and validation splits.

    Raises:
      UserError: a file that does not exist or is not such a table, an image that does not exist
        or is listed twice, a split or a label without images, or too many unreadable images.
    """
    check_number("sources.table.test_share", test_share, above=0, below=1)
    check_number("sources.table.validation_share", validation_share, at_least=0, below=1)
    check_number("sources.table.unreadable_limit", unreadable_limit, at_least=0, at_most=1)
    check_integer("sources.table.seed", seed, at_least=0)
    check_flag("sources.table.multi_label", multi_label, optional=True)
    check_flag("sources.table.check_images", check_images)
    check_text("sources.table.separator", separator, example=";")
    if root is not None:
        check_text("sources.table.root", root, example="/data")
    path = _existing(file)
    lines, columns = _read_lines(path, separator)
    base = path.parent if root is None else expanded(root)
    lines = [dataclasses.replace(line, path=str(base / line.path)) for line in lines]
    if not lines:
        raise UserError(f"{file!r} lists no images below its header: add some")
    _check_files(str(file), lines)
    lines, check = _readable(lines, unreadable_limit) if check_images else (lines, None)
    names: tuple[str, ...] = ()
    if "labels" in columns:
        if multi_label is None:
            multi_label = any(len(line.labels) > 1 for line in lines)
        needed = 1 if "split" in columns else 2
        names = _class_names(str(file), lines, multi_label, needed=needed)
    whole = _split(lines, names, bool(multi_label), check)
    splits = {"train": whole}
    if "split" in columns:
        splits = _given_splits(str(file), whole, lines)
        if "validation" in splits and validation_share:
            raise UserError(
                f"{file!r} has a validation split: sources.table.validation_share must be 0, got "
                f"{validation_share}"
            )
    else:
        splits = split_off_test(whole, test_share, seed, root=str(base))
    source = Source(
        path.stem,
        names,
        splits["train"],
        splits["test"],
        splits.get("validation"),
        root=str(base),
        is_split_by_path="split" not in columns,
    )
    return with_validation(source, validation_share, seed)


def _existing(file: str | None) -> Path:
    if file is None:
        raise UserError(
            "which table of images? Set --gin_param=\"sources.table.file = '/data/images.csv'\""
        )
    check_text("sources.table.file", file, example="/data/images.csv")
    path = expanded(file)
    if not path.is_file():
        raise UserError(
            f"no table {file!r}: point sources.table.file at a CSV file of the columns path,labels"
        )
    return path


def _read_lines(path: Path, separator: str) -> tuple[list[_Line], list[str]]:
    """The lines below the header, and the names of the columns."""
    try:
        # Spreadsheets may write a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            header = [name.strip() for name in next(reader, [])]
            numbered = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{str(path)!r} is not UTF-8 or not CSV ({error}): save it as CSV UTF-8"
        ) from error
    if "path" not in header or len(header) > len({*header} & {"path", "labels", "split"}):
        raise UserError(
            f"the columns of {str(path)!r} must be path,labels or path,labels,split, got "
            f"{','.join(header) or 'an empty file'}"
        )
    return [_line(path, header, number, cells, separator) for number, cells in numbered], header


def _line(
    path: Path, header: Sequence[str], number: int, cells: Sequence[str], separator: str
) -> _Line:
    where = f"line {number} of {str(path)!r}"
    if len(cells) != len(header):
        raise UserError(
            f"{where} has {len(cells)} columns, {len(header)} are needed: separate the labels of "
            f"an image by {separator!r}"
        )
    given = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    labels = tuple(label.strip() for label in given.get("labels", "").split(separator))
    if not given["path"] or ("labels" in given and "" in labels):
        missing = "label" if given["path"] else "path"
        raise UserError(f"{where} lacks a {missing}, got {','.join(cells)!r}")
    if "\0" in given["path"]:
        raise UserError(f"{where} has a NUL character in the path {given['path']!r}: remove it")
    split = given.get("split", "train")
    if split not in SPLITS:
        raise UserError(f"{where}: the split must be one of {SPLITS}, got {split!r}")
    return _Line(number, given["path"], labels if "labels" in given else (), split)


def _check_files(file: str, lines: Sequence[_Line]) -> None:
    """Raises a UserError for an image that does not exist or is listed twice."""
    first_of: dict[str, int] = {}
    for line in lines:
        # A link to another image of the table is the same image.
        first = first_of.setdefault(os.path.realpath(line.path), line.number)
        if first != line.number:
            raise UserError(
                f"{line.path!r} is in lines {first} and {line.number} of {file!r}: put all its "
                "labels in one line"
            )
        if not os.path.isfile(line.path):
            raise UserError(
                f"no image {line.path!r}, which is in line {line.number} of {file!r}: paths are "
                "relative to sources.table.root"
            )


def _readable(lines: list[_Line], limit: float) -> tuple[list[_Line], ImageCheck]:
    paths = [line.path for line in lines]
    check = check_readable(paths, limit, setting="sources.table.unreadable_limit")
    return [line for line in lines if line.path not in check.unreadable], check


def _given_splits(
    file: str, whole: IndexedSplit, lines: Sequence[_Line]
) -> dict[str, IndexedSplit]:
    """The splits that the lines name."""
    splits = {}
    for name in SPLITS:
        numbers = np.flatnonzero([line.split == name for line in lines]).astype(np.int64)
        if numbers.size:
            splits[name] = whole.take(numbers)
        elif name != "validation":
            raise UserError(f"no image of {file!r} is in the split {name!r}: add some")
    return splits


def _class_names(
    file: str, lines: Sequence[_Line], multi_label: bool, *, needed: int
) -> tuple[str, ...]:
    """The labels, sorted, after a check that each has the needed number of images."""
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
                f"the label {name!r} of {file!r} has {counts[name]} "
                f"{'training ' if needed == 1 else ''}images, {needed} needed: add some, or leave "
                "it out"
            )
    return names


def _split(
    lines: Sequence[_Line], names: tuple[str, ...], multi_label: bool, check: ImageCheck | None
) -> IndexedSplit:
    paths = [line.path for line in lines]
    if not names:
        return split_of_files(paths, np.full(len(lines), -1, np.int64), check)
    numbers = {name: number for number, name in enumerate(names)}
    rows = np.zeros([len(lines), len(names)], np.int64)
    for row, line in zip(rows, lines, strict=True):
        row[[numbers[label] for label in line.labels]] = 1
    return split_of_files(paths, rows if multi_label else rows.argmax(axis=1), check)
