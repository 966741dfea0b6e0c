"""Compares the results of two small runs of tools/chaos bit for bit."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("pretrain", "linear")


def difference(one: Path, other: Path) -> str:
    """The first difference of two finished runs; "" if they are bit-identical."""
    try:
        return _difference(one, other)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def _difference(one: Path, other: Path) -> str:
    from supcon_tf.errors import UserError
    from supcon_tf.json_files import check_checksums

    for stage in STAGES:
        left, right = (
            weights_of(run / "checkpoints" / stage / "model.keras") for run in (one, other)
        )
        if left.keys() != right.keys():
            return f"{stage} has other weights"
        for name, values in left.items():
            if not np.array_equal(values, right[name]):
                return f"{stage} {name}"
    for name in ("curves.json", "metrics.json"):
        left, right = (untimed(json.loads((run / name).read_text())) for run in (one, other))
        if left != right:
            return name
    if not all((other / name).exists() for name in ("report.html", "export/saved_model.pb")):
        return "report or export missing"
    try:
        check_checksums(other / "export")
    except UserError as error:
        return str(error)
    is_whole = (other / "report.html").read_text().rstrip().endswith("</html>")
    return "" if is_whole else "report is torn"


def weights_of(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a .keras file."""
    import h5py

    found: dict[str, np.ndarray] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(file) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as weights:
        weights.visititems(add)
    return found


def untimed(content: Any) -> Any:
    """Without the measured times."""
    if isinstance(content, dict):
        timed = ("seconds", "images_per_second")
        return {key: untimed(value) for key, value in content.items() if key not in timed}
    return [untimed(value) for value in content] if isinstance(content, list) else content
