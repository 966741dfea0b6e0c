"""How an exported classifier stands up to corrupted images."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from supcon_tf.data.sources import Source
from supcon_tf.data.views import decode
from supcon_tf.evaluation import (
    expected_calibration_error,
    mean_corruption_error,
    top_k_accuracy,
)
from supcon_tf.stages.run_folder import RunFolder, read_json, write_json

# The strengths of the corruptions are in pixels; ImageNet-C's images were first shrunk to this.
MAX_SHORT_SIDE_PX = 256
IMAGENET_CLASSES = 1000
CLEAN = ("clean", 0)


def run(
    folder: RunFolder,
    *,
    source: Source,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = 256,
    max_images: int | None = None,
    seed: int = 0,
    export: str | None = None,
) -> None:
    """Runs a SavedModel over the held-out images, as they are and corrupted, and saves the errors.

    An image whose short side is above 256 px is first shrunk to that. Corrupting is done on one
    core: some milliseconds an image at 32 px, about 0.1 s at 224 px, where all 75 cells of 50,000
    images are days. Each finished (corruption, severity) is kept in robustness.json, from which a
    killed run goes on.

    The results, fractions unless said otherwise: "clean_error"; "errors", by corruption in the
    order of "severities"; "mean_error", their plain mean without a baseline; "mce" and
    "relative_mce", percent of AlexNet's, where all 15 x 5 were run on 1,000 classes;
    "clean_calibration_error" and "calibration_errors", the latter by severity. Means are over
    corruptions; the four extra ones enter them only where no other was run.

    Args:
      folder: the run's.
      source: its held-out split.
      corruptions: of `data.corruptions.CORRUPTIONS` and `EXTRA_CORRUPTIONS`.
      severities: of 1 to 5.
      batch_size: images at a time.
      max_images: an unchanging random choice of so many; None is all.
      seed: of that choice and of the corruptions.
      export: a SavedModel as `serving.save_serving_model` writes it; None is this run's.

    Raises:
      FileNotFoundError: no SavedModel there.
      ValueError: a SavedModel without class scores or with other classes, an unknown corruption or
        severity, an image below 32 px, or numbers that cannot be.
    """
    _check("corruptions", corruptions, (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
    _check("severities", severities, SEVERITIES)
    if batch_size < 1 or (max_images is not None and max_images < 1) or seed < 0:
        raise ValueError(
            "robustness.run needs batch_size >= 1, max_images >= 1 or None, and seed >= 0, "
            f"got {batch_size}, {max_images} and {seed}"
        )
    path = folder.export if export is None else Path(export).expanduser()
    model = _load(path, source.num_classes)
    num_images = min(source.test.num_examples, max_images or source.test.num_examples)
    examples = source.test.shuffled(seed=seed, start=0, stop=num_images).map(
        lambda image, label: (_shrunk(decode(image)), label), num_parallel_calls=tf.data.AUTOTUNE
    )

    record = folder.root / "robustness.json"
    settings = {
        "source": source.name,
        "num_images": num_images,
        "seed": seed,
        "export_written": (path / "saved_model.pb").stat().st_mtime,
    }
    cells = _finished_cells(record, settings)
    wanted = [CLEAN, *itertools.product(corruptions, severities)]
    missing = [cell for cell in wanted if _name(*cell) not in cells]
    if len(missing) < len(wanted):
        print(f"robustness: {len(wanted) - len(missing)} of {len(wanted)} finished before")
    with tqdm(total=len(missing) * num_images, unit="image", leave=False, disable=None) as progress:
        for corruption, severity in missing:
            progress.set_description(f"robustness: {corruption} {severity or ''}")
            cells[_name(corruption, severity)] = _measure(
                model.signatures["serving_default"],
                _images(examples, corruption, severity, seed=seed),
                batch_size=batch_size,
                progress=progress,
            )
            write_json(record, {"settings": settings, "cells": cells})

    seconds = sum(cells[_name(*cell)]["seconds"] for cell in wanted)
    results = _results(cells, corruptions, severities, num_classes=source.num_classes) | {
        "num_images": num_images,
        "seconds": seconds,
        "images_per_second": len(wanted) * num_images / seconds,
    }
    folder.set_metrics("robustness", results)


def _check(name: str, chosen: Sequence[Any], known: Sequence[Any]) -> None:
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise ValueError(
            f"robustness.run.{name} must be some of {tuple(known)}, each once, got {tuple(chosen)}"
        )


def _load(path: Path, num_classes: int) -> Any:
    """The SavedModel, whose variables live only as long as it is held."""
    if not (path / "saved_model.pb").is_file():
        raise FileNotFoundError(
            f'no SavedModel in {str(path)!r}: put "linear" before "robustness" in '
            "experiment.run.stages, or set robustness.run.export to one"
        )
    model = tf.saved_model.load(str(path))
    outputs = model.signatures["serving_default"].structured_outputs
    if "probabilities" not in outputs:
        raise ValueError(
            f'the export in {str(path)!r} has no class scores: put "linear" before '
            '"robustness" in experiment.run.stages, or set robustness.run.export to one with them'
        )
    exported = outputs["probabilities"].shape[1]
    if exported != num_classes:
        raise ValueError(
            f"the export in {str(path)!r} has {exported} classes and the source {num_classes}: "
            "set robustness.run.source to the images it was trained for"
        )
    return model


def _name(corruption: str, severity: int) -> str:
    return f"{corruption}/{severity}"


def _finished_cells(record: Path, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What an earlier run with the same settings measured."""
    content = read_json(record)
    return content["cells"] if content.get("settings") == settings else {}


def _images(
    examples: tf.data.Dataset, corruption: str, severity: int, *, seed: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Images uint8 [H, W, 3] of any size, corrupted unless clean, with their labels."""
    for number, (image, label) in enumerate(examples.as_numpy_iterator()):
        if (corruption, severity) != CLEAN:
            image = corrupt(
                image, corruption=corruption, severity=severity, seed=seed, number=number
            )
        yield image, label


def _shrunk(image: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] with a short side of at most 256 px."""
    size = tf.shape(image)[:2]
    short_side = tf.reduce_min(size)
    size = size * tf.minimum(short_side, MAX_SHORT_SIDE_PX) // short_side
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def _measure(
    classify: Callable[..., dict[str, tf.Tensor]],
    images: Iterator[tuple[np.ndarray, int]],
    *,
    batch_size: int,
    progress: tqdm,
) -> dict[str, float]:
    start = time.perf_counter()
    probabilities, labels = [], []
    while batch := list(itertools.islice(images, batch_size)):
        probabilities.append(_probabilities(classify, [image for image, _ in batch]))
        labels += [label for _, label in batch]
        progress.update(len(batch))
    scores = np.concatenate(probabilities)
    return {
        "error": 1 - top_k_accuracy(scores, np.array(labels)),
        "calibration_error": expected_calibration_error(scores, np.array(labels)),
        "seconds": time.perf_counter() - start,
    }


def _probabilities(
    classify: Callable[..., dict[str, tf.Tensor]], images: Sequence[np.ndarray]
) -> np.ndarray:
    """float32 [B, C] of images that need not have one size."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(number)
    scores: dict[int, np.ndarray] = {}
    for numbers in by_shape.values():
        outputs = classify(images=tf.constant(np.stack([images[number] for number in numbers])))
        scores |= zip(numbers, outputs["probabilities"].numpy(), strict=True)
    return np.stack([scores[number] for number in range(len(images))])


def _results(
    cells: dict[str, dict[str, float]],
    corruptions: Sequence[str],
    severities: Sequence[int],
    *,
    num_classes: int,
) -> dict[str, Any]:
    def across(measure: str, severity: int) -> list[float]:
        return [cells[_name(corruption, severity)][measure] for corruption in averaged]

    clean = cells[_name(*CLEAN)]
    errors = {
        corruption: [cells[_name(corruption, severity)]["error"] for severity in severities]
        for corruption in corruptions
    }
    averaged = [name for name in corruptions if name in CORRUPTIONS] or corruptions
    results = {
        "clean_error": clean["error"],
        "mean_error": float(np.mean([across("error", severity) for severity in severities])),
        "errors": errors,
        "severities": list(severities),
        "clean_calibration_error": clean["calibration_error"],
        "calibration_errors": [
            float(np.mean(across("calibration_error", severity))) for severity in severities
        ],
    }
    is_whole = set(CORRUPTIONS) <= set(corruptions) and set(SEVERITIES) == set(severities)
    if is_whole and num_classes == IMAGENET_CLASSES:
        compared = mean_corruption_error(errors, clean_error=clean["error"])
        results |= {"mce": compared.mce, "relative_mce": compared.relative_mce}
    return results
