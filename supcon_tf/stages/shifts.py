"""Shifts stage: accuracy and calibration of an exported classifier on another test set."""

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.decode import decode
from supcon_tf.data.sources import Source
from supcon_tf.data.sources.base import check_source
from supcon_tf.data.splits import IndexedSplit, Split
from supcon_tf.errors import UserError, check_callable, check_integer, check_text
from supcon_tf.evaluation import (
    classification_intervals,
    expected_calibration_error,
    mean_per_class_accuracy,
    top_k_accuracy,
)
from supcon_tf.evaluation.classifiers import Classifier, saved_model
from supcon_tf.evaluation.intervals import as_metrics
from supcon_tf.evaluation.prediction import read_class_names
from supcon_tf.evaluation.saved_model import LABELS_FILE
from supcon_tf.files import expanded
from supcon_tf.reporting.scored_split import read_predictions
from supcon_tf.run_dir import RunDir

IMAGENET_CLASSES = 1000
# Settings that differ between classifiers.
_CLASSIFIER_SETTINGS = ("classifier", "class_names")


def run(
    run_dir: RunDir,
    *,
    source: Source,
    name: str | None = None,
    num_classes: int | None = None,
    num_images: int | None = None,
    class_names: str | None = None,
    classifier: Callable[..., Classifier] = saved_model,
    batch_size: int = 64,
    export: str | None = None,
) -> None:
    """Measures a SavedModel on a set of test images and adds the results to those of other sets.

    The scores are restricted to the classes that have images in the set, as the authors of
    ImageNet-R and ImageNet-A do: the highest score among these classes is the prediction, and the
    probabilities are a softmax over them. Classes are matched by name, such as the wordnet id.

    Results of each set, by its name in "sets", as fractions: "top_1", "top_5", "mean_per_class",
    "expected_calibration_error" and the measures of `evaluation.classification_intervals`;
    "test_split_top_1", the same top-1 on the run's own test images of these classes.

    Args:
      run_dir: the run directory.
      source: its test split is measured, such as `data.shifted.folder`.
      name: of the set, in the results. None is the name of the source.
      num_classes: how many classes the set must have, so that a part of it is not taken for the
        whole. None takes any number.
      num_images: how many images the set must have. None takes any number.
      class_names: file with the name of each class of the model, a line each. None is the
        labels.txt of the export.
      classifier: path -> the classifier, such as `evaluation.classifiers.saved_model`.
      batch_size: images per prediction.
      export: path of a SavedModel. None is the export of this run.

    Raises:
      UserError: no SavedModel, or one without class scores or class names; a set with classes that
        the model lacks, with other than `num_classes` classes or `num_images` images, or with
        several labels per image or none; or options out of range.
    """
    _check_source(source)
    check_callable("shifts.run.classifier", classifier, example="@classifiers.saved_model")
    check_integer("shifts.run.batch_size", batch_size, at_least=1)
    if num_classes is not None:
        check_integer("shifts.run.num_classes", num_classes, at_least=2)
    if num_images is not None:
        check_integer("shifts.run.num_images", num_images, at_least=1)
    for option, value in (("name", name), ("class_names", class_names), ("export", export)):
        if value is not None:
            check_text(f"shifts.run.{option}", value, example="imagenet_r")
    name = name or source.name
    if num_images not in (None, found := source.test.num_examples):
        raise UserError(
            f"{name} has {found:,} images, {num_images:,} are expected: complete it, or set "
            "shifts.run.num_images = None to measure a part"
        )
    if isinstance(source.test, IndexedSplit):
        _check_count(name, source.test.labels, num_classes)
    path = run_dir.export if export is None else expanded(export)
    model = classifier(path)
    names = _class_names(path, model, class_names)
    numbers = class_numbers(source, names)
    settings = {
        "source": f"{source.name} {source.root}".strip(),
        "num_images": source.test.num_examples,
        "class_names": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
        "classifier": model.description,
    }
    sets = _sets_of_same_classifier(run_dir, settings)
    if sets.get(name, {}).get("settings") == settings:
        print(f"shifts: {name} was measured before")
        return
    replaced = sets.get(name, {}).get("settings", {}).get("source")
    if replaced not in (None, settings["source"]):
        print(f"shifts: {name} was measured on {replaced!r} before, whose results are replaced")
    start = time.perf_counter()
    probabilities, labels = _predict(model, source.test, batch_size, f"shifts: {name}")
    _check_count(name, labels, num_classes)
    classes, positions = np.unique(numbers[labels], return_inverse=True)
    results = _measures(restricted(probabilities, classes), positions)
    if export is None:
        results |= _on_test_split(run_dir, classes, num_classes=len(names))
    seconds = time.perf_counter() - start
    sets[name] = {
        "num_images": len(labels),
        "num_classes": len(classes),
        **results,
        "seconds": seconds,
        "images_per_second": len(labels) / seconds,
        "settings": settings,
    }
    total = sum(each["seconds"] for each in sets.values())
    images = sum(each["num_images"] for each in sets.values())
    run_dir.set_metrics(
        "shifts", {"sets": sets, "seconds": total, "images_per_second": images / total}
    )


def class_numbers(source: Source, names: Sequence[str]) -> np.ndarray:
    """The model's number of each class of a source, int64 [C].

    The classes of ImageNet-V2 are numbers: positions among the 1,000 sorted wordnet ids.

    Args:
      source: the source.
      names: the names of the model's classes.

    Raises:
      UserError: two equal names, or a class that the model lacks.
    """
    number_of = {name: number for number, name in enumerate(names)}
    if len(number_of) < len(names):
        twice = next(name for n, name in enumerate(names) if number_of[name] != n)
        raise UserError(f"the model has two classes {twice!r}: give each its name")
    wanted = source.class_names
    is_imagenet = len(names) == IMAGENET_CLASSES and all(map(_is_wordnet_id, names))
    if is_imagenet and set(wanted) <= set(map(str, range(IMAGENET_CLASSES))):
        in_order = sorted(names)
        wanted = tuple(in_order[int(position)] for position in wanted)
    lacking = [name for name in wanted if name not in number_of]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(wanted)} classes of {source.name!r} are not among the "
            f"{len(names)} classes of the model, such as {lacking[0]!r}; the model has "
            f"{', '.join(map(repr, names[:3]))}, ...: evaluate a run that was trained on these "
            "classes, or set shifts.run.class_names to a file with the wordnet id of each class "
            "of the model, a line each"
        )
    return np.array([number_of[name] for name in wanted], np.int64)


def restricted(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The softmax over some of the classes: float32 [n, C], numbers [K] -> float32 [n, K].

    An image whose probabilities of these classes are all zero gets equal ones.
    """
    kept = probabilities[:, classes]
    total = kept.sum(axis=1, keepdims=True)
    return np.where(total == 0, np.float32(1 / len(classes)), kept / np.where(total == 0, 1, total))


def _check_source(source: Source) -> None:
    check_source("shifts.run.source", source)
    if not source.has_labels or source.is_multi_label:
        raise UserError(
            f"shifts.run.source must have one label per image, {source.name!r} has "
            f"{'several' if source.has_labels else 'none'}: choose another source"
        )


def _check_count(name: str, labels: np.ndarray, num_classes: int | None) -> None:
    found = len(np.unique(labels))
    if num_classes is not None and found != num_classes:
        raise UserError(
            f"{name} has images of {found} classes, {num_classes} are expected: complete it, as "
            "with fewer classes the accuracy is higher"
        )


def _class_names(path: Path, model: Classifier, class_names: str | None) -> list[str]:
    file = path / LABELS_FILE if class_names is None else expanded(class_names)
    if not file.is_file():
        raise UserError(
            f"no file {str(file)!r} with the names of the model's classes: set "
            "shifts.run.class_names to one, with a line per class, such as n01440764"
        )
    count = model.num_classes
    if count is None:
        count = model.probabilities([np.zeros((224, 224, 3), np.uint8)]).shape[1]
    return read_class_names(file, count)


def _is_wordnet_id(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None


def _sets_of_same_classifier(run_dir: RunDir, settings: dict[str, Any]) -> dict[str, Any]:
    """The sets measured before; those measured on another classifier are left out."""
    sets = run_dir.shifts()
    same = {
        name: results
        for name, results in sets.items()
        if all(results["settings"].get(key) == settings[key] for key in _CLASSIFIER_SETTINGS)
    }
    if removed := sorted(sets.keys() - same.keys()):
        print(f"shifts: another classifier was measured on {', '.join(removed)}: measure it again")
    return same


def _predict(
    model: Classifier, split: Split, batch_size: int, description: str
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities float32 [n, C] and labels int64 [n] of all images of a split."""
    images = (
        split.in_order()
        .map(lambda image, label: (decode(image), label), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
        .as_numpy_iterator()
    )
    probabilities: list[np.ndarray] = []
    labels: list[int] = []
    with tqdm(
        desc=description, total=split.num_examples, unit="image", leave=False, disable=None
    ) as progress:
        while batch := list(itertools.islice(images, batch_size)):
            probabilities.append(model.probabilities([image for image, _ in batch]))
            labels.extend(label for _, label in batch)
            progress.update(len(batch))
    return np.concatenate(probabilities), np.array(labels, np.int64)


def _measures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    return {
        "top_5": top_k_accuracy(probabilities, labels, k=5),
        "mean_per_class": mean_per_class_accuracy(probabilities, labels),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        **as_metrics(classification_intervals(probabilities, labels)),
    }


def _on_test_split(run_dir: RunDir, classes: np.ndarray, *, num_classes: int) -> dict[str, float]:
    """The top-1 accuracy on the run's test images of these classes, if it has their scores."""
    predictions = read_predictions(run_dir.scored_split)
    if predictions is None or predictions[0].shape[1] != num_classes:
        return {}
    probabilities, labels = predictions
    chosen = np.isin(labels, classes)
    if not chosen.any():
        return {}
    scores = restricted(probabilities[chosen], classes)
    return {"test_split_top_1": top_k_accuracy(scores, np.searchsorted(classes, labels[chosen]))}
