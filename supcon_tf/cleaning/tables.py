"""The findings of an audit as CSV files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supcon_tf.cleaning.audit import Audit
from supcon_tf.cleaning.images import AuditImages
from supcon_tf.files import replacing


def write_tables(folder: Path, images: AuditImages, findings: Audit) -> None:
    """Writes duplicates.csv, label_errors.csv, isolated.csv and class_overlaps.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    names, splits, labels = images.names, images.split_of, images.label_texts
    classes = images.class_names

    def described(image: int) -> tuple[str, str, str]:
        return names[image], splits[image], labels[image]

    _write(
        folder / "duplicates.csv",
        ("similarity", "path_1", "split_1", "label_1", "path_2", "split_2", "label_2"),
        [
            (f"{pair.similarity:.4f}", *described(pair.first), *described(pair.second))
            for pair in findings.duplicates
        ],
    )
    _write(
        folder / "label_errors.csv",
        ("path", "split", "label", "suggestion", "margin"),
        [
            (
                names[error.image],
                splits[error.image],
                classes[error.label],
                classes[error.suggestion],
                f"{error.margin:.4f}",
            )
            for error in findings.errors
        ],
    )
    _write(
        folder / "isolated.csv",
        ("path", "split", "label", "distance"),
        [(*described(image), f"{distance:.4f}") for image, distance in findings.isolated],
    )
    _write(
        folder / "class_overlaps.csv",
        ("class_1", "class_2", "share"),
        [
            (classes[pair.first], classes[pair.second], f"{pair.share:.4f}")
            for pair in findings.overlaps
        ],
    )


def _write(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    # Bytes of a path that are not UTF-8 are written as \\udcXX.
    with (
        replacing(file) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened,
    ):
        csv.writer(opened).writerows([header, *rows])
