"""The directory of an index.

index.json has the settings, the calibration and the class names; index.npz the embeddings, paths
and labels; graph.usearch the graph of an approximate index; checksums.json the checksums of all.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.files import sync
from supcon_tf.json_files import check_checksums, sha256, write_checksums, write_json
from supcon_tf.search.calibration import Calibration
from supcon_tf.search.detection import Detection
from supcon_tf.search.graph import Graph
from supcon_tf.search.matching import MatchThreshold
from supcon_tf.search.unknown import ClassStatistics

_SETTINGS, _ARRAYS, _GRAPH = "index.json", "index.npz", "graph.usearch"
_VERSION = 1


@dataclasses.dataclass
class Contents:
    """What an index holds: see `Index`.

    Args:
      rows: float32 [n, D] of unit length.
      paths: [n].
      labels: [n]; "" for no label.
      keys: int64 [n], ascending.
      next_key: the key of the next image.
      approximate: as `Index` takes it.
      model_checksum: of the model that made the embeddings.
      calibration: None before it is calibrated.
    """

    rows: np.ndarray
    paths: list[str]
    labels: list[str]
    keys: np.ndarray
    next_key: int
    approximate: bool | None
    model_checksum: str | None
    calibration: Calibration | None


def model_checksum(export: Path) -> str:
    """Identifies the graph and the weights of a SavedModel, in hexadecimal."""
    files = [export / "saved_model.pb", *sorted((export / "variables").glob("*"))]
    lines = [f"{file.relative_to(export).as_posix()} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_new_index(folder: Path) -> None:
    """Checks that a directory is new, empty or an index.

    Raises:
      UserError: a file, or a directory with other files.
    """
    if folder.is_dir() and ((folder / _SETTINGS).is_file() or not any(folder.iterdir())):
        return
    if folder.is_dir():
        raise UserError(f"{str(folder)!r} has files that are no index: give a new directory")
    if os.path.lexists(folder):
        raise UserError(f"{str(folder)!r} is no directory: give a new directory")


def write_index(folder: Path, contents: Contents, graph: Graph | None) -> None:
    """Writes an index completely or not at all, replacing an index at `folder`."""
    check_new_index(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    classes = sorted(set(contents.labels))
    number_of = {label: number for number, label in enumerate(classes)}
    arrays = {
        "embeddings": contents.rows,
        "keys": contents.keys,
        # Names end at a NUL. As an array of text, each would take the space of the longest one.
        "paths": np.frombuffer(_encoded(contents.paths), np.uint8),
        "labels": np.array([number_of[label] for label in contents.labels], np.int64),
    }
    if contents.calibration is not None:
        statistics = contents.calibration.statistics
        arrays |= {"class_means": statistics.means, "whitening": statistics.whitening}
    np.savez(partial / _ARRAYS, allow_pickle=False, **arrays)
    settings = {
        "version": _VERSION,
        "num_images": len(contents.paths),
        "dimension": contents.rows.shape[1],
        "classes": classes,
        "next_key": contents.next_key,
        "approximate": contents.approximate,
        "has_graph": graph is not None,
        "model_checksum": contents.model_checksum,
        "calibration": _without_statistics(contents.calibration),
    }
    write_json(partial / _SETTINGS, settings)
    if graph is not None:
        graph.save(partial / _GRAPH)
    write_checksums(partial)
    for file in partial.iterdir():
        sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    sync(folder.parent)


def read_index(folder: Path) -> tuple[Contents, Graph | None]:
    """Reads what `write_index` wrote.

    Raises:
      UserError: no index, a newer version, a damaged file, or one that has changed.
    """
    if not (folder / _SETTINGS).is_file() or not (folder / "checksums.json").is_file():
        raise UserError(f"no index in {str(folder)!r}: python -m supcon_tf.index makes one")
    check_checksums(folder)
    try:
        settings = json.loads((folder / _SETTINGS).read_bytes())
        if settings["version"] != _VERSION:
            raise UserError(
                f"the index in {str(folder)!r} has version {settings['version']!r} instead of "
                f"{_VERSION}: build it again"
            )
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            contents = _contents(settings, dict(arrays))
        has_graph = settings["has_graph"]
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the index in {str(folder)!r} is damaged ({type(error).__name__}: {error}): build it "
            "again"
        ) from None
    graph = None
    if has_graph:
        graph = Graph(contents.rows.shape[1])
        graph.load(folder / _GRAPH, num_rows=len(contents.rows))
    return contents, graph


def _contents(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Contents:
    """Checks that the parts belong together; raises a ValueError if not."""
    count, dimension = settings["num_images"], settings["dimension"]
    rows, keys, numbers = arrays["embeddings"], arrays["keys"], arrays["labels"]
    paths = _decoded(arrays["paths"].tobytes())
    if rows.shape != (count, dimension) or rows.dtype != np.float32 or not np.isfinite(rows).all():
        raise ValueError("embeddings")
    if len(paths) != count or len(set(paths)) != count:
        raise ValueError("paths")
    if numbers.shape != (count,) or (count and numbers.min() < 0):
        raise ValueError("labels")
    if keys.shape != (count,) or (np.diff(keys, append=settings["next_key"]) <= 0).any():
        raise ValueError("keys")
    saved = settings["calibration"]
    calibration = None
    if saved is not None:
        match, measured = saved["match"], saved["detection"]
        statistics = ClassStatistics(arrays["class_means"], arrays["whitening"])
        if statistics.means.shape[1:] != (dimension,):
            raise ValueError("class_means")
        if statistics.whitening.shape != (dimension, dimension):
            raise ValueError("whitening")
        calibration = Calibration(
            **{
                **saved,
                "match": None if match is None else MatchThreshold(**match),
                "detection": {name: Detection(**values) for name, values in measured.items()},
            },
            statistics=statistics,
        )
    return Contents(
        rows=rows,
        paths=paths,
        labels=[settings["classes"][number] for number in numbers],
        keys=keys,
        next_key=settings["next_key"],
        approximate=settings["approximate"],
        model_checksum=settings["model_checksum"],
        calibration=calibration,
    )


def _without_statistics(calibration: Calibration | None) -> dict[str, Any] | None:
    """All but the arrays, as dicts."""
    if calibration is None:
        return None
    # The statistics are replaced first, as asdict copies arrays.
    no_arrays = ClassStatistics(np.empty(0), np.empty(0))
    values = dataclasses.asdict(dataclasses.replace(calibration, statistics=no_arrays))
    return {name: value for name, value in values.items() if name != "statistics"}


def _encoded(texts: list[str]) -> bytes:
    # A path may have bytes that are not UTF-8, which Python keeps as surrogates.
    return "".join(f"{text}\0" for text in texts).encode("utf-8", "surrogateescape")


def _decoded(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogateescape").split("\0")[:-1]
