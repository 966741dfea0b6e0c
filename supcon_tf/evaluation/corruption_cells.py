"""Measures of a classifier for each corruption and severity (a "cell"), saved one by one."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.corruptions.base import Cell, Images
from supcon_tf.errors import UserError
from supcon_tf.evaluation import Reliability, reliability
from supcon_tf.evaluation.classifiers import Classifier
from supcon_tf.evaluation.thumbnails import resize_longer_side
from supcon_tf.files import replacing
from supcon_tf.json_files import move_checked_json, read_json, write_checked_json
from supcon_tf.run_dir import RunDir

CLEAN = ("clean", 0)
# Side of the example picture of each cell; smaller images keep their size.
PICTURE_PX = 96


def cell_name(corruption: str, severity: int) -> str:
    """The key of a cell in the run directory."""
    return f"{corruption}/{severity}"


def measure_all(
    run_dir: RunDir,
    wanted: Sequence[Cell],
    images: Callable[[str, int], Images],
    model: Classifier,
    *,
    settings: dict[str, Any],
    class_names: Sequence[str],
    batch_size: int,
) -> dict[str, dict[str, Any]]:
    """Measures the wanted cells that have not been measured with the same settings before.

    Cells measured with other settings are replaced when all wanted cells have been measured.

    Args:
      run_dir: keeps the cells and the example pictures.
      wanted: the cells.
      images: corruption, severity -> its labelled images.
      model: the classifier.
      settings: what the measures depend on, with "num_images" per cell.
      class_names: names of the labels, for the report.
      batch_size: images per prediction.

    Returns:
      Cell name -> its measures, at least for all wanted cells.
    """
    finished = run_dir.robustness_cells
    is_same = read_json(finished).get("settings", settings) == settings
    file = finished if is_same else run_dir.next_robustness_cells
    pictures = run_dir.robustness_examples if is_same else run_dir.next_robustness_examples
    content = read_json(file)
    cells = content["cells"] if content.get("settings") == settings else {}
    missing = [cell for cell in wanted if cell_name(*cell) not in cells]
    if len(missing) < len(wanted):
        print(f"robustness: {len(wanted) - len(missing)} of {len(wanted)} finished before")
    total = len(missing) * settings["num_images"]
    with tqdm(total=total, unit="image", leave=False, disable=None) as progress:
        for corruption, severity in missing:
            progress.set_description(f"robustness: {corruption} {severity or ''}")
            cells[cell_name(corruption, severity)] = _measure(
                model,
                images(corruption, severity),
                batch_size=batch_size,
                progress=progress,
                picture=pictures / run_dir.robustness_example(corruption, severity).name,
            )
            content = {"settings": settings, "class_names": list(class_names), "cells": cells}
            write_checked_json(file, content)
    if not is_same:
        _replace_finished(run_dir)
    return cells


def _replace_finished(run_dir: RunDir) -> None:
    """Replaces the cells and pictures of other settings by the new ones."""
    pictures = run_dir.next_robustness_examples
    if pictures.is_dir():
        run_dir.robustness_examples.mkdir(exist_ok=True)
        for picture in pictures.iterdir():
            picture.replace(run_dir.robustness_examples / picture.name)
        pictures.rmdir()
    move_checked_json(run_dir.next_robustness_cells, run_dir.robustness_cells)


def _measure(
    model: Classifier, images: Images, *, batch_size: int, progress: tqdm, picture: Path
) -> dict[str, Any]:
    """Error, calibration and an example of one cell."""
    start = time.perf_counter()
    confidences, is_right = [], []
    example: dict[str, Any] = {}
    while batch := list(itertools.islice(images, batch_size)):
        probabilities = model.probabilities([image for image, _ in batch])
        labels = np.array([label for _, label in batch])
        for label in (labels.min(), labels.max()):
            if not 0 <= label < probabilities.shape[1]:
                raise UserError(
                    f"the classifier has {probabilities.shape[1]} classes, but an image has label "
                    f"{label}: set robustness.run.source to the images it was trained for"
                )
        predictions = probabilities.argmax(axis=1)
        confidences.append(probabilities.max(axis=1))
        is_right.append(predictions == labels)
        if not example:
            _save_picture(picture, batch[0][0])
            example = {
                "label": int(labels[0]),
                "guess": int(predictions[0]),
                "probability": float(confidences[0][0]),
            }
        progress.update(len(batch))
    if not confidences:
        raise UserError(f"no images to measure for {picture.stem}")
    measures = _measures(np.concatenate(confidences), np.concatenate(is_right))
    return {**measures, "example": example, "seconds": time.perf_counter() - start}


def _measures(confidences: np.ndarray, is_right: np.ndarray) -> dict[str, Any]:
    diagram: Reliability = reliability(confidences, is_right)
    equal_mass = reliability(confidences, is_right, binning="equal_mass")
    return {
        "error": 1 - float(np.mean(is_right)),
        "calibration_error": diagram.error,
        "adaptive_calibration_error": equal_mass.error,
        "reliability": {
            "counts": diagram.counts.tolist(),
            "confidences": diagram.confidences.tolist(),
            "hits": diagram.hits.tolist(),
        },
    }


def _save_picture(path: Path, image: np.ndarray) -> None:
    """Saves the image as PNG; a failure is logged and does not end the run."""
    try:
        small = resize_longer_side(image, min(PICTURE_PX, max(image.shape[:2])))
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(tf.io.encode_png(small).numpy())
    except Exception:
        logging.getLogger(__name__).exception("no picture of %s", path.stem)
