"""The directory of an index.

index.json has the settings, the calibration and the class names; index.npz the embeddings, paths
and labels; graph.usearch the graph of an approximate index; checksums.json the checksums of all.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np

from supcon_tf.errors import UserError
from supcon_tf.files import sync
from supcon_tf.json_files import check_checksums, read_json, sha256, write_checksums, write_json
from supcon_tf.search.calibration import Calibration, UnknownScore
from supcon_tf.search.detection import Detection
from supcon_tf.search.graph import Graph
from supcon_tf.search.matching import MatchThreshold
from supcon_tf.search.unknown import ClassStatistics

_SETTINGS, _ARRAYS, _GRAPH = "index.json", "index.npz", "graph.usearch"
_CHECKSUMS = "checksums.json"
_VERSION = 2


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


def model_checksum(export: str | os.PathLike[str]) -> str:
    """Identifies the graph and the weights of a SavedModel, in hexadecimal.

    Raises:
      UserError: no SavedModel in the directory.
    """
    export = Path(export)
    if not (export / "saved_model.pb").is_file():
        raise UserError(f"no SavedModel in {str(export)!r}: give the directory of saved_model.pb")
    files = [export / "saved_model.pb", *sorted((export / "variables").glob("*"))]
    lines = [f"{file.relative_to(export).as_posix()} {sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_new_index(folder: Path) -> None:
    """Checks that a directory is new, empty, or an index without other files.

    Raises:
      UserError: a file, or a directory with other files.
    """
    target = Path(os.path.realpath(folder))
    existing = next(each for each in (target, *target.parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise UserError(f"{str(existing)!r} is not a directory: give a new directory")
    other = _other_file(target) if existing == target else None
    if other is not None:
        raise UserError(
            f"{str(folder)!r} has {other!r}, which is not a file of an index: give a new directory"
        )


def _other_file(folder: Path) -> str | None:
    """The name of a file that does not belong to an index, None if there is none."""
    names = sorted(os.listdir(folder))
    for name in names:
        is_own = name in (_SETTINGS, _ARRAYS, _GRAPH, _CHECKSUMS)
        if not is_own or not (folder / name).is_file():
            return name
    if not names:
        return None
    try:
        settings = json.loads((folder / _SETTINGS).read_bytes())
    except (ValueError, FileNotFoundError):
        settings = None
    if isinstance(settings, dict) and {"version", "num_images", "dimension"} <= set(settings):
        return None
    return _SETTINGS if _SETTINGS in names else names[0]


def write_index(folder: Path, contents: Contents, graph: Graph | None) -> None:
    """Writes an index completely or not at all, replacing an index at `folder`."""
    check_new_index(folder)
    folder = Path(os.path.realpath(folder))
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
    _replace(folder, partial)


def _replace(folder: Path, new: Path) -> None:
    """Puts a directory in the place of another one, which is removed last."""
    old = None
    if folder.exists():
        old = tempfile.mkdtemp(prefix=f"{folder.name}.old-", dir=folder.parent)
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old is not None:
            os.replace(old, folder)
        raise
    sync(folder.parent)
    if old is not None:
        shutil.rmtree(old)


def read_index(folder: Path) -> tuple[Contents, Graph | None]:
    """Reads what `write_index` wrote.

    Raises:
      UserError: no index, a newer version, a damaged file, or one that has changed.
    """
    if not (folder / _SETTINGS).is_file() or not (folder / _CHECKSUMS).is_file():
        raise UserError(f"no index in {str(folder)!r}: python -m supcon_tf.index makes one")
    check_checksums(folder)
    checksums = read_json(folder / _CHECKSUMS)
    for name in (_SETTINGS, _ARRAYS, _GRAPH):
        if name not in checksums and (name != _GRAPH or (folder / name).exists()):
            raise UserError(
                f"{str(folder / _CHECKSUMS)!r} has no checksum of {name!r}: build the index again"
            )
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
    classes, checksum = settings["classes"], settings["model_checksum"]
    if rows.shape != (count, dimension) or rows.dtype != np.float32 or not np.isfinite(rows).all():
        raise ValueError("embeddings")
    if len(paths) != count or len(set(paths)) != count:
        raise ValueError("paths")
    if not _is_texts(classes):
        raise ValueError("classes")
    if numbers.shape != (count,) or numbers.dtype != np.int64 or (count and numbers.min() < 0):
        raise ValueError("labels")
    if not _is_integer(settings["next_key"], 0):
        raise ValueError("next_key")
    if keys.shape != (count,) or keys.dtype != np.int64:
        raise ValueError("keys")
    if (np.diff(keys, append=settings["next_key"]) <= 0).any():
        raise ValueError("keys")
    for name, choices in {"approximate": (None, True, False), "has_graph": (True, False)}.items():
        if not any(settings[name] is choice for choice in choices):
            raise ValueError(name)
    if not isinstance(checksum, str | None):
        raise ValueError("model_checksum")
    saved = settings["calibration"]
    return Contents(
        rows=rows,
        paths=paths,
        labels=[classes[number] for number in numbers],
        keys=keys,
        next_key=settings["next_key"],
        approximate=settings["approximate"],
        model_checksum=checksum,
        calibration=None if saved is None else _calibration(saved, arrays, dimension),
    )


def _calibration(
    saved: dict[str, Any], arrays: dict[str, np.ndarray], dimension: int
) -> Calibration:
    """Checks a calibration; raises a ValueError with the name of a wrong entry."""
    match, measured, thresholds = saved["match"], saved["detection"], saved["thresholds"]
    scores = get_args(UnknownScore)
    shares = {"known_share": saved["known_share"]}
    counts = {name: saved[name] for name in ("num_neighbors", "num_images", "num_unknown")}
    if match is not None:
        shares |= {name: match[name] for name in ("wanted_precision", "precision", "recall")}
        counts |= {f"{name} of match": match[name] for name in ("num_matches", "num_images")}
        if match["similarity"] is not None and not _is_number(match["similarity"], -1, 1):
            raise ValueError("similarity")
    if saved["unknown_score"] not in scores:
        raise ValueError("unknown_score")
    if not isinstance(thresholds, dict) or set(thresholds) != set(scores):
        raise ValueError("thresholds")
    if not all(_is_number(each, 0, math.inf) for each in thresholds.values()):
        raise ValueError("thresholds")
    if not isinstance(measured, dict) or not set(measured) <= set(scores):
        raise ValueError("detection")
    for score, values in measured.items():
        shares |= {f"{name} of {score}": values[name] for name in ("auroc", "fpr95", "aupr")}
    for name, share in shares.items():
        if not _is_number(share, 0, 1):
            raise ValueError(name)
    for name, number in counts.items():
        if not _is_integer(number, name == "num_neighbors"):
            raise ValueError(name)
    if not _is_texts(saved["classes"]):
        raise ValueError("classes of the calibration")
    statistics = ClassStatistics(arrays["class_means"], arrays["whitening"])
    for name, array, length in (
        ("class_means", statistics.means, len(statistics.means)),
        ("whitening", statistics.whitening, dimension),
    ):
        if array.shape != (length, dimension) or array.dtype != np.float64 or not length:
            raise ValueError(name)
        if not np.isfinite(array).all():
            raise ValueError(name)
    return Calibration(
        **{
            **saved,
            "match": None if match is None else MatchThreshold(**match),
            "detection": {name: Detection(**values) for name, values in measured.items()},
            "classes": tuple(saved["classes"]),
        },
        statistics=statistics,
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_integer(value: Any, lowest: int) -> bool:
    return type(value) is int and value >= lowest


def _is_number(value: Any, lowest: float, highest: float) -> bool:
    """Whether a value is a finite number within limits."""
    return type(value) in (int, float) and math.isfinite(value) and lowest <= value <= highest


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
