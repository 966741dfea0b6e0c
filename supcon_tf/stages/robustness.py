"""Robustness stage: errors and calibration of an exported classifier on corrupted images."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf.data.corruptions import CorruptedImages, on_the_fly
from supcon_tf.data.corruptions.base import Cell, Images, read_images
from supcon_tf.data.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from supcon_tf.data.sources import Source
from supcon_tf.data.sources.base import check_source
from supcon_tf.errors import UserError, check_callable, check_integer
from supcon_tf.evaluation import mean_corruption_error, read_baseline
from supcon_tf.evaluation.classifiers import Classifier, saved_model
from supcon_tf.evaluation.corruption_cells import CLEAN, cell_name, measure_all
from supcon_tf.evaluation.corruption_error import averaged_corruptions
from supcon_tf.files import expanded
from supcon_tf.json_files import read_json
from supcon_tf.run_dir import RunDir
from supcon_tf.training.run_data import run_images

IMAGENET_CLASSES = 1000


def run(
    run_dir: RunDir,
    *,
    source: Source,
    corrupted: Callable[..., CorruptedImages] = on_the_fly,
    classifier: Callable[..., Classifier] = saved_model,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    baseline: str | None = None,
    batch_size: int = 256,
    max_images: int | None = None,
    seed: int = 0,
    export: str | None = None,
) -> None:
    """Measures a SavedModel on the clean and the corrupted test images and saves the results.

    Images are first shrunk to a short side of at most 256 px. Each finished corruption and
    severity is kept in the run directory with its first image, and a killed run continues there.
    For each image of a running measurement, only the confidence and the correctness are in memory.

    Results, as fractions unless noted: "clean_error"; "errors", for each corruption in the order of
    "severities"; "unnormalized_mean_error", their mean without a baseline; "mce", "relative_mce",
    "corruption_errors" and "relative_corruption_errors", in percent of the baseline;
    "clean_calibration_error" and, by severity, "calibration_errors"; the same with the prefix
    "adaptive_" for bins of equal mass. Means are over the standard corruptions; the four extra ones
    enter them only if no standard one was run.

    Args:
      run_dir: the run directory.
      source: its test split is measured.
      corrupted: source, cells, num_images, seed -> the corrupted images; one of
        `data.corruptions`.
      classifier: path -> the classifier, such as `evaluation.classifiers.saved_model`.
      corruptions: some of `CORRUPTIONS` and `EXTRA_CORRUPTIONS`.
      severities: some of 1 to 5.
      baseline: a run directory or a JSON file, see `evaluation.read_baseline`. With None, AlexNet
        is the baseline if all 15 x 5 cells are measured on 1,000 classes, and otherwise there is no
        mCE.
      batch_size: images per prediction.
      max_images: size of a fixed random subset of the test images. None measures all.
      seed: of this subset and of corruptions made on the fly.
      export: path of a SavedModel. None is the export of this run.

    Raises:
      UserError: no SavedModel, or one without class scores or with other classes; images with
        several labels or none, missing corrupted images, an image below 32 px, unknown
        corruptions or severities, a baseline of other images, or options out of range.
    """
    _check_source(source)
    if not source.has_labels:
        print(f"robustness: skipped, the images of {source.name!r} have no labels")
        return
    source = run_images(run_dir, "robustness", source)
    check_callable("robustness.run.corrupted", corrupted, example="@corruptions.on_the_fly")
    check_callable("robustness.run.classifier", classifier, example="@classifiers.saved_model")
    _check_options(corruptions, severities, baseline, batch_size, max_images, seed)
    _check_path("export", export)
    _check_path("baseline", baseline)
    path = run_dir.export if export is None else expanded(export)
    model = classifier(path)
    _check_classes(path, model, source)
    num_images = min(source.test.num_examples, max_images or source.test.num_examples)
    cells = [CLEAN, *itertools.product(corruptions, severities)]
    corrupted_images = corrupted(source, cells=cells[1:], num_images=num_images, seed=seed)
    data = {
        "source": source.name,
        "corrupted": corrupted_images.description,
        "num_images": num_images,
        "seed": seed,
    }
    reference = None if baseline is None else _read_baseline(baseline, data)

    def images(corruption: str, severity: int) -> Images:
        if (corruption, severity) == CLEAN:
            return read_images(source.test, num_images=num_images, seed=seed)
        return corrupted_images.images(corruption, severity)

    measured = measure_all(
        run_dir,
        cells,
        images,
        model,
        settings={**data, "classifier": model.description},
        class_names=source.class_names,
        batch_size=batch_size,
    )
    results = {
        **_errors(measured, corruptions, severities),
        **_speed(measured, cells, num_images),
    }
    is_imagenet = source.num_classes == IMAGENET_CLASSES and _has_all(corruptions, severities)
    if reference is not None or is_imagenet:
        results |= _corruption_errors(results, baseline or "alexnet", reference or "alexnet")
    run_dir.set_metrics("robustness", results)


def _check_source(source: Source) -> None:
    check_source("robustness.run.source", source)
    if source.is_multi_label:
        raise UserError(
            f"the robustness stage needs one label per image, {source.name!r} has several labels "
            'per image: remove "robustness" from experiment.run'
        )


def _check_options(
    corruptions: Sequence[str],
    severities: Sequence[int],
    baseline: str | None,
    batch_size: int,
    max_images: int | None,
    seed: int,
) -> None:
    _check_subset("corruptions", corruptions, (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
    _check_subset("severities", severities, SEVERITIES)
    check_integer("robustness.run.batch_size", batch_size, at_least=1)
    check_integer("robustness.run.seed", seed, at_least=0)
    if max_images is not None:
        check_integer("robustness.run.max_images", max_images, at_least=1)
    if baseline is not None and not _has_all(corruptions, severities):
        raise UserError(
            "robustness.run.baseline needs all 15 corruptions at all 5 severities: remove "
            "robustness.run.corruptions and robustness.run.severities, or the baseline"
        )


def _check_path(name: str, path: Any) -> None:
    if path is not None and not isinstance(path, str | Path):
        raise UserError(f"robustness.run.{name} must be a path or None, got {path!r}")


def _check_subset(name: str, chosen: Sequence[Any], known: Sequence[Any]) -> None:
    is_sequence = isinstance(chosen, Sequence) and not isinstance(chosen, str)
    is_subset = is_sequence and all(value in known for value in chosen)
    if not is_subset or not chosen or len(set(chosen)) < len(chosen):
        raise UserError(
            f"robustness.run.{name} must be some of {tuple(known)}, each once, got {chosen!r}"
        )


def _has_all(corruptions: Sequence[str], severities: Sequence[int]) -> bool:
    return set(CORRUPTIONS) <= set(corruptions) and set(SEVERITIES) == set(severities)


def _check_classes(path: Path, model: Classifier, source: Source) -> None:
    if model.num_classes not in (source.num_classes, None):
        raise UserError(
            f"the export in {str(path)!r} has {model.num_classes} classes and the source "
            f"{source.num_classes}: set robustness.run.source to the images it was trained for"
        )


def _read_baseline(path: str, data: dict[str, Any]) -> dict[str, Any]:
    """The errors of a file, or of another run on the same images."""
    errors = read_baseline(path)
    settings = read_json(RunDir(expanded(path)).robustness_cells).get("settings", {})
    for name, value in data.items():
        if settings and settings.get(name) != value:
            raise UserError(
                f"the baseline {path!r} was measured with {name} {settings.get(name)!r}, this "
                f"run with {value!r}: measure both with the same settings"
            )
    return errors


def _errors(
    measured: dict[str, dict[str, Any]], corruptions: Sequence[str], severities: Sequence[int]
) -> dict[str, Any]:
    def by_severity(measure: str) -> list[float]:
        names = averaged_corruptions(corruptions)
        return [
            float(np.mean([measured[cell_name(name, severity)][measure] for name in names]))
            for severity in severities
        ]

    clean = measured[cell_name(*CLEAN)]
    kinds = ("calibration_error", "adaptive_calibration_error")
    return {
        "clean_error": clean["error"],
        "unnormalized_mean_error": float(np.mean(by_severity("error"))),
        "errors": {
            corruption: [
                measured[cell_name(corruption, severity)]["error"] for severity in severities
            ]
            for corruption in corruptions
        },
        "severities": list(severities),
        **{f"clean_{kind}": clean[kind] for kind in kinds},
        **{f"{kind}s": by_severity(kind) for kind in kinds},
    }


def _speed(
    measured: dict[str, dict[str, Any]], cells: Sequence[Cell], num_images: int
) -> dict[str, float]:
    seconds = sum(measured[cell_name(*cell)]["seconds"] for cell in cells)
    return {
        "num_images": num_images,
        "seconds": seconds,
        "images_per_second": len(cells) * num_images / seconds,
    }


def _corruption_errors(results: dict[str, Any], name: str, baseline: Any) -> dict[str, Any]:
    """The corruption errors in percent of the baseline's."""
    errors = {corruption: results["errors"][corruption] for corruption in CORRUPTIONS}
    plain = mean_corruption_error(errors, baseline=baseline)
    compared = {
        "baseline": name,
        "mce": plain.mce,
        "corruption_errors": plain.corruption_errors,
    }
    try:
        relative = mean_corruption_error(
            errors, clean_error=results["clean_error"], baseline=baseline
        )
    except UserError as error:
        # For example, a corruption that does not increase the baseline's error.
        print(f"robustness: no relative mCE, {error}")
        return compared
    return compared | {
        "relative_mce": relative.relative_mce,
        "relative_corruption_errors": relative.relative_corruption_errors,
    }
