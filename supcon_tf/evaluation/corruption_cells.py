"""What the robustness stage measures of each corruption and severity, and keeps as it goes."""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.corruptions.base import Cell, Images
from supcon_tf.errors import UserError
from supcon_tf.evaluation import reliability
from supcon_tf.evaluation.classifiers import Classifier
from supcon_tf.run_dir import RunDir, read_json, write_json

CLEAN = ("clean", 0)
# The side of the example that is kept of each cell.
PICTURE_PX = 96


def cell_name(corruption: str, severity: int) -> str:
    """Of a cell in robustness.json."""
    return f"{corruption}/{severity}"


def measure_all(
    folder: RunDir,
    wanted: Sequence[Cell],
    images: Callable[[str, int], Images],
    model: Classifier,
    *,
    settings: dict[str, Any],
    class_names: Sequence[str],
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """What is known of every cell that is wanted, by its name, measured unless it was before.

    What was measured with other settings stays until all that is wanted is there.
    """
    kept, begun = folder.root / "robustness.json", folder.root / "robustness_next.json"
    record = kept if read_json(kept).get("settings", settings) == settings else begun
    content = read_json(record)
    cells = content["cells"] if content.get("settings") == settings else {}
    pictures = folder.root / ("robustness" if record == kept else "robustness_next")
    missing = [cell for cell in wanted if cell_name(*cell) not in cells]
    if len(missing) < len(wanted):
        print(f"robustness: {len(wanted) - len(missing)} of {len(wanted)} finished before")
    num_images = settings["num_images"]
    with tqdm(total=len(missing) * num_images, unit="image", leave=False, disable=None) as progress:
        for corruption, severity in missing:
            progress.set_description(f"robustness: {corruption} {severity or ''}")
            picture = pictures / folder.robustness_example(corruption, severity).name
            cells[cell_name(corruption, severity)] = _measure(
                model,
                images(corruption, severity),
                batch_size=batch_size,
                progress=progress,
                picture=picture,
            )
            write_json(
                record,
                {"settings": settings, "class_names": list(class_names), "cells": cells},
            )
    if record == begun:
        for picture in pictures.iterdir():
            picture.replace(folder.root / "robustness" / picture.name)
        pictures.rmdir()
        begun.replace(kept)
    return cells


def _measure(
    model: Classifier, images: Images, *, batch_size: int, progress: tqdm, picture: Path
) -> dict[str, Any]:
    """One cell: its errors, its reliability diagram, and what was said of its first image."""
    start = time.perf_counter()
    confidences, is_right = [], []
    example: dict[str, Any] = {}
    while batch := list(itertools.islice(images, batch_size)):
        probabilities = model.probabilities([image for image, _ in batch])
        labels = np.array([label for _, label in batch])
        if labels.max() >= probabilities.shape[1]:
            raise UserError(
                f"the classifier has {probabilities.shape[1]} classes, an image the label "
                f"{labels.max()}: set robustness.run.source to the images it was trained for"
            )
        guesses = probabilities.argmax(axis=1)
        confidences.append(probabilities.max(axis=1))
        is_right.append(guesses == labels)
        if not example:
            _save_picture(picture, batch[0][0])
            example = {
                "label": int(labels[0]),
                "guess": int(guesses[0]),
                "probability": float(confidences[0][0]),
            }
        progress.update(len(batch))
    confidence, right = np.concatenate(confidences), np.concatenate(is_right)
    found = reliability(confidence, right)
    return {
        "error": 1 - float(np.mean(right)),
        "calibration_error": found.error,
        "adaptive_calibration_error": reliability(confidence, right, binning="equal_mass").error,
        "reliability": {
            "counts": found.counts.tolist(),
            "confidences": found.confidences.tolist(),
            "hits": found.hits.tolist(),
        },
        "example": example,
        "seconds": time.perf_counter() - start,
    }


def _save_picture(path: Path, image: np.ndarray) -> None:
    """The image as a PNG whose longer side is at most `PICTURE_PX`."""
    height, width = image.shape[:2]
    scale = min(1.0, PICTURE_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = tf.image.resize(image, size, antialias=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tf.io.encode_png(tf.cast(tf.round(small), tf.uint8)).numpy())
