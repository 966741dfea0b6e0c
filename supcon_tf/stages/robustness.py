"""How an exported classifier stands up to corrupted images."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supcon_tf.data.corruptions import CorruptedImages, on_the_fly
from supcon_tf.data.corruptions.base import Images, read_images
from supcon_tf.data.corruptions.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.evaluation import mean_corruption_error, read_baseline
from supcon_tf.evaluation.classifiers import Classifier, saved_model
from supcon_tf.evaluation.corruption_cells import CLEAN, cell_name, measure_all
from supcon_tf.evaluation.corruption_error import averaged_corruptions
from supcon_tf.run_dir import RunDir, read_json

IMAGENET_CLASSES = 1000


def run(
    folder: RunDir,
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
    """Runs a SavedModel over the held-out images, as they are and corrupted, and saves the errors.

    An image whose short side is above 256 px is first shrunk to that. Each finished (corruption,
    severity) is kept in robustness.json, from which a killed run goes on, and its first image in
    the folder robustness. What is kept of an image while a cell is measured is its confidence and
    whether it was right.

    The results, fractions unless said otherwise: "clean_error"; "errors", by corruption in the
    order of "severities"; "unnormalized_mean_error", their plain mean, which is no mCE; "mce",
    "relative_mce", "corruption_errors" and "relative_corruption_errors", percent of the
    baseline's; "clean_calibration_error" and "calibration_errors", the latter by severity, and the
    same with "adaptive_" in front for bins of equal mass. Means are over corruptions; the four
    extra ones enter them only where no other was run.

    Args:
      folder: the run's.
      source: its held-out split.
      corrupted: source, cells, num_images, seed -> the corrupted images, one of `data.corrupted`.
      classifier: path -> what is measured, as `evaluation.classifiers.saved_model`.
      corruptions: of `data.corruptions.CORRUPTIONS` and `EXTRA_CORRUPTIONS`.
      severities: of 1 to 5.
      baseline: of the mCE: a run's folder or a JSON file, as for `evaluation.read_baseline`; None
        is AlexNet where all 15 x 5 are run on 1,000 classes, and no mCE otherwise.
      batch_size: images at a time.
      max_images: an unchanging random choice of so many; None is all.
      seed: of that choice and of corruptions made on the fly.
      export: a SavedModel, as `serving.save_serving_model` writes it or another one; None is this
        run's.

    Raises:
      UserError: no SavedModel, or corrupted images that are missing.
      UserError: a SavedModel without class scores or with other classes, images with several
        labels, an unknown corruption or severity, an image below 32 px, a baseline of other images,
        or numbers that cannot be.
    """
    if source.is_multi_label:
        raise UserError(
            f"the robustness stage needs one label per image, those of {source.name!r} may have "
            "several: leave it out of experiment.run"
        )
    _check("corruptions", corruptions, (*CORRUPTIONS, *EXTRA_CORRUPTIONS))
    _check("severities", severities, SEVERITIES)
    if batch_size < 1 or (max_images is not None and max_images < 1) or seed < 0:
        raise UserError(
            "robustness.run needs batch_size >= 1, max_images >= 1 or None, and seed >= 0, "
            f"got {batch_size}, {max_images} and {seed}"
        )
    is_whole = set(CORRUPTIONS) <= set(corruptions) and set(SEVERITIES) == set(severities)
    if baseline is not None and not is_whole:
        raise UserError(
            "robustness.run.baseline needs all 15 corruptions at all 5 severities: leave "
            "robustness.run.corruptions and robustness.run.severities out, or the baseline"
        )
    path = folder.export if export is None else Path(export).expanduser()
    model = classifier(path)
    if model.num_classes not in (source.num_classes, None):
        raise UserError(
            f"the export in {str(path)!r} has {model.num_classes} classes and the source "
            f"{source.num_classes}: set robustness.run.source to the images it was trained for"
        )
    num_images = min(source.test.num_examples, max_images or source.test.num_examples)
    cells = list(itertools.product(corruptions, severities))
    made = corrupted(source, cells=cells, num_images=num_images, seed=seed)

    def images(corruption: str, severity: int) -> Images:
        if (corruption, severity) == CLEAN:
            return read_images(source.test, num_images=num_images, seed=seed)
        return made.images(corruption, severity)

    data = {
        "source": source.name,
        "corrupted": made.description,
        "num_images": num_images,
        "seed": seed,
    }
    reference = None if baseline is None else _baseline(baseline, data)
    settings = {
        **data,
        "classifier": model.description,
        "export_written": (path / "saved_model.pb").stat().st_mtime,
    }
    wanted = [CLEAN, *cells]
    measured = measure_all(
        folder,
        wanted,
        images,
        model,
        settings=settings,
        class_names=source.class_names,
        batch_size=batch_size,
    )
    seconds = sum(measured[cell_name(*cell)]["seconds"] for cell in wanted)
    results = _results(measured, corruptions, severities) | {
        "num_images": num_images,
        "seconds": seconds,
        "images_per_second": len(wanted) * num_images / seconds,
    }
    if reference is not None or (is_whole and source.num_classes == IMAGENET_CLASSES):
        results |= _compared(results, baseline or "alexnet", reference)
    folder.set_metrics("robustness", results)


def _check(name: str, chosen: Sequence[Any], known: Sequence[Any]) -> None:
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise UserError(
            f"robustness.run.{name} must be some of {tuple(known)}, each once, got {tuple(chosen)}"
        )


def _baseline(path: str, data: dict[str, Any]) -> dict[str, Any]:
    """The errors of another run on the same images, or of a file."""
    errors = read_baseline(path)
    measured_on = read_json(Path(path).expanduser() / "robustness.json").get("settings", {})
    for name, value in data.items():
        if measured_on and measured_on.get(name) != value:
            raise UserError(
                f"the baseline {path!r} was measured with {name} {measured_on.get(name)!r}, this "
                f"run with {value!r}: measure both with the same settings"
            )
    return errors


def _results(
    cells: dict[str, dict[str, Any]], corruptions: Sequence[str], severities: Sequence[int]
) -> dict[str, Any]:
    def by_severity(measure: str) -> list[float]:
        return [
            float(
                np.mean(
                    [
                        cells[cell_name(name, severity)][measure]
                        for name in averaged_corruptions(corruptions)
                    ]
                )
            )
            for severity in severities
        ]

    clean = cells[cell_name(*CLEAN)]
    kinds = ("calibration_error", "adaptive_calibration_error")
    return {
        "clean_error": clean["error"],
        "unnormalized_mean_error": float(np.mean(by_severity("error"))),
        "errors": {
            corruption: [cells[cell_name(corruption, severity)]["error"] for severity in severities]
            for corruption in corruptions
        },
        "severities": list(severities),
        **{f"clean_{kind}": clean[kind] for kind in kinds},
        **{f"{kind}s": by_severity(kind) for kind in kinds},
    }


def _compared(
    results: dict[str, Any], name: str, baseline: dict[str, Any] | None
) -> dict[str, Any]:
    """The corruption errors in percent of a baseline's, AlexNet's without one."""
    errors = {corruption: results["errors"][corruption] for corruption in CORRUPTIONS}
    reference: Any = "alexnet" if baseline is None else baseline
    found = mean_corruption_error(errors, baseline=reference)
    compared = {
        "baseline": name,
        "mce": found.mce,
        "corruption_errors": found.corruption_errors,
    }
    try:
        found = mean_corruption_error(
            errors, clean_error=results["clean_error"], baseline=reference
        )
    except ValueError as error:
        # Such as a corruption that adds nothing to the baseline's error.
        print(f"robustness: no relative mCE, {error}")
        return compared
    return compared | {
        "relative_mce": found.relative_mce,
        "relative_corruption_errors": found.relative_corruption_errors,
    }
