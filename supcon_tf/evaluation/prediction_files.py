"""Writes predictions as they come: to a partial file, renamed when it is complete."""

import contextlib
import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.files import replacing, sync

# Written outputs of the model -> their names in an .npz file.
COLUMNS = {
    "embedding": "embeddings",
    "label": "labels",
    "labels": "labels",
    "probabilities": "probabilities",
    # Of an index, or of a model that was exported with one.
    "unknown_score": "unknown_scores",
    "is_unknown": "is_unknown",
}
# Number of images per written part.
IMAGES_PER_PART = 1024

Outputs = dict[str, np.ndarray]


class Writer(Protocol):
    """Writes predictions as they come, then creates the output from them."""

    def add(self, paths: Sequence[str], outputs: Outputs) -> None:
        """Adds the outputs for some images."""

    def flush(self) -> None:
        """Writes all added outputs to the partial file."""

    def finish(self) -> None:
        """Creates the complete output."""

    def discard(self) -> None:
        """Removes the partial output."""


@contextlib.contextmanager
def open_writer(output: Path) -> Iterator[Writer]:
    """A writer for the output; if interrupted, the predictions so far stay in OUTPUT.partial."""
    partial = output.with_name(f"{output.name}.partial")
    _remove(partial)
    writer = WRITERS[output.suffix](output, partial)
    try:
        yield writer
    except UserError:
        writer.discard()
        raise
    except BaseException:
        writer.flush()
        print(f"the predictions so far are in {str(partial)!r}", file=sys.stderr)
        raise
    writer.finish()


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)


class CsvWriter:
    """Rows of a .csv file. Bytes of a path that are not UTF-8 are written as \\udcXX."""

    def __init__(self, output: Path, partial: Path):
        self.output, self.partial = output, partial
        self.file = partial.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        self.writer = csv.writer(self.file)
        self.has_header = False

    def add(self, paths: Sequence[str], outputs: Outputs) -> None:
        """Writes a row per image: path, label and probability or labels, neighbours, embedding."""
        columns = columns_of(paths, outputs)
        embeddings = outputs["embedding"].T
        columns |= {f"embedding_{number}": values for number, values in enumerate(embeddings)}
        if not self.has_header:
            self.writer.writerow(columns)
            self.has_header = True
        self.writer.writerows(zip(*columns.values(), strict=True))
        self.file.flush()

    def flush(self) -> None:
        """Closes the file."""
        self.file.close()

    def finish(self) -> None:
        """Renames the file to the output."""
        self.file.close()
        sync(self.partial)
        os.replace(self.partial, self.output)

    def discard(self) -> None:
        """Removes the file."""
        self.file.close()
        _remove(self.partial)


class NpzWriter:
    """Writes an .npz file: parts in a directory, joined at the end."""

    def __init__(self, output: Path, partial: Path):
        self.output, self.partial = output, partial
        self.pending: list[Outputs] = []
        self.num_parts = 0
        partial.mkdir()

    def add(self, paths: Sequence[str], outputs: Outputs) -> None:
        """Adds outputs, and writes a part when there are enough."""
        named = {COLUMNS.get(name, name): values for name, values in outputs.items()}
        self.pending.append({"paths": np.array(paths), **named})
        if sum(len(part["paths"]) for part in self.pending) >= IMAGES_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Writes the outputs since the last part as a new part."""
        if self.pending:
            file = self.partial / f"part_{self.num_parts:06d}.npz"
            np.savez(file, allow_pickle=False, **_joined(self.pending))
            self.pending, self.num_parts = [], self.num_parts + 1

    def finish(self) -> None:
        """Joins the parts and renames the result to the output."""
        self.flush()
        parts = [dict(np.load(file)) for file in sorted(self.partial.glob("part_*.npz"))]
        with replacing(self.output) as whole:
            np.savez_compressed(whole, allow_pickle=False, **_joined(parts))
        _remove(self.partial)

    def discard(self) -> None:
        """Removes the parts."""
        _remove(self.partial)


class ParquetWriter:
    """Writes a .parquet file with the columns of a .csv file, and lists of numbers for the rest.

    Bytes of a path that are not UTF-8 are written as \\udcXX.

    Raises:
      UserError: pyarrow is not installed.
    """

    def __init__(self, output: Path, partial: Path):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UserError(
                f"a .parquet file needs pyarrow ({error}): pip install pyarrow"
            ) from error
        self.arrow = pyarrow
        self.output, self.partial = output, partial
        self.pending: list[Any] = []
        self.file: Any = None

    def add(self, paths: Sequence[str], outputs: Outputs) -> None:
        """Adds outputs, and writes a row group when there are enough."""
        columns = {name: self._column(cells) for name, cells in columns_of(paths, outputs).items()}
        for name in ("probabilities", "embedding"):
            if name in outputs:
                columns[name] = self.arrow.FixedSizeListArray.from_arrays(
                    self.arrow.array(outputs[name].ravel()), outputs[name].shape[1]
                )
        self.pending.append(self.arrow.table(columns))
        if sum(table.num_rows for table in self.pending) >= IMAGES_PER_PART:
            self._write()

    def _column(self, cells: Any) -> Any:
        array = np.asarray(cells)
        if array.dtype.kind != "U":
            return self.arrow.array(array)
        texts = [text.encode("utf-8", "backslashreplace").decode() for text in array.tolist()]
        return self.arrow.array(texts)

    def _write(self) -> None:
        if self.pending:
            table = self.arrow.concat_tables(self.pending).combine_chunks()
            if self.file is None:
                self.file = self.arrow.parquet.ParquetWriter(self.partial, table.schema)
            self.file.write_table(table)
            self.pending = []

    def flush(self) -> None:
        """Writes all outputs, and completes the file."""
        self._write()
        self._close()

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()

    def finish(self) -> None:
        """Renames the file to the output."""
        self.flush()
        sync(self.partial)
        os.replace(self.partial, self.output)

    def discard(self) -> None:
        """Removes the file."""
        self._close()
        _remove(self.partial)


# Suffix of the output -> its writer.
WRITERS: dict[str, Callable[[Path, Path], Writer]] = {
    ".csv": CsvWriter,
    ".npz": NpzWriter,
    ".parquet": ParquetWriter,
}


def columns_of(paths: Sequence[str], outputs: Outputs) -> dict[str, Any]:
    """A column for the path and for each output with one value per image, [n] each."""
    columns: dict[str, Any] = {"path": paths}
    if "label" in outputs:
        columns |= {
            "label": outputs["label"],
            "probability": outputs["probabilities"].max(axis=1),
        }
    elif "labels" in outputs:
        columns["labels"] = outputs["labels"]
    return columns | _neighbor_columns(outputs)


def _neighbor_columns(outputs: Outputs) -> dict[str, Any]:
    """The columns of what an index adds: see `search.answers`; {} without an index."""
    columns: dict[str, Any] = {}
    for number in range(outputs.get("neighbor_paths", np.empty((0, 0))).shape[1]):
        for name in ("path", "label", "similarity"):
            plural = "similarities" if name == "similarity" else f"{name}s"
            columns[f"neighbor_{number + 1}_{name}"] = outputs[f"neighbor_{plural}"][:, number]
    added = ("is_match", "unknown_score", "is_unknown")
    return columns | {name: outputs[name] for name in added if name in outputs}


def _joined(parts: Sequence[Outputs]) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
