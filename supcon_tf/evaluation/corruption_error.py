"""Mean corruption error (mCE) of ImageNet-C."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from supcon_tf.data.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from supcon_tf.errors import UserError
from supcon_tf.files import expanded
from supcon_tf.run_dir import RunDir

# Mean error over the severities, as published with ImageNet-C.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
    "clean": 0.4348,
}


@dataclasses.dataclass(frozen=True)
class CorruptionError:
    """Result of `mean_corruption_error`.

    Args:
      mce: mean of the 15 corruption errors, in percent.
      relative_mce: mean of the 15 relative corruption errors, in percent; None without a clean
        error.
      mean_errors: corruption -> mean error over the severities, as a fraction.
      corruption_errors: corruption -> percent, for the corruptions of the baseline.
      relative_corruption_errors: the same, relative; None without a clean error.
    """

    mce: float
    relative_mce: float | None
    mean_errors: dict[str, float]
    corruption_errors: dict[str, float]
    relative_corruption_errors: dict[str, float] | None


def mean_corruption_error(
    errors: Mapping[str, Sequence[float] | float],
    *,
    clean_error: float | None = None,
    baseline: Literal["alexnet"] | Mapping[str, Sequence[float] | float] = "alexnet",
) -> CorruptionError:
    """Corruption errors on ImageNet-C in percent of a baseline's, and their mean.

    CE_c = sum_s E_s,c / sum_s B_s,c and relative CE_c = sum_s (E_s,c - E_clean) /
    sum_s (B_s,c - B_clean), over the severities s; mCE and relative mCE are the means over the
    15 corruptions c. Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to
    Common Corruptions and Perturbations".

    Args:
      errors: corruption -> top-1 error at severities 1 to 5, or their mean, as fractions; for all
        15 of `data.imagenet_c.CORRUPTIONS`. The 4 extra ones are optional and do not
        enter the means.
      clean_error: top-1 error on the uncorrupted images, for the relative errors.
      baseline: "alexnet", or a mapping like `errors` with "clean" -> clean error; see
        `read_baseline`.

    Raises:
      UserError: a missing or unknown corruption, a wrong number of severities, an error outside
        [0, 1], or a baseline with error 0 (relative: with an error not above its clean one).

    Example:
      >>> from supcon_tf.data.imagenet_c import CORRUPTIONS
      >>> from supcon_tf.evaluation import mean_corruption_error
      >>> halved = mean_corruption_error(
      ...     dict.fromkeys(CORRUPTIONS, 0.2), baseline=dict.fromkeys(CORRUPTIONS, 0.4))
      >>> halved.mce
      50.0
    """
    if not isinstance(baseline, Mapping):
        if baseline != "alexnet":
            raise UserError(
                f"baseline must be 'alexnet' or a mapping, got {baseline!r}: read_baseline reads "
                "one from a file or a run directory"
            )
        baseline = ALEXNET
    _check_names("errors", errors)
    _check_names("baseline", [name for name in baseline if name != "clean"])
    means = {name: _mean_error(name, error) for name, error in errors.items()}
    references = {name: _mean_error(f"baseline {name}", error) for name, error in baseline.items()}

    def percent_of_baseline(clean: float, baseline_clean: float) -> dict[str, float]:
        percent = {}
        for name in means:
            if name not in references:
                continue
            increase = references[name] - baseline_clean
            if increase <= 0:
                raise UserError(
                    f"the baseline's error of {name!r} must be > "
                    f"{round(baseline_clean, 4)}, got {round(references[name], 4)}"
                )
            percent[name] = 100 * ((means[name] - clean) / increase)
        return percent

    ratios = percent_of_baseline(0.0, 0.0)
    relative = None
    if clean_error is not None:
        if "clean" not in references:
            raise UserError("baseline must have 'clean' when clean_error is given: add it")
        clean = _mean_error("clean_error", clean_error)
        relative = percent_of_baseline(clean, references["clean"])
    return CorruptionError(
        mce=_mean_of_15(ratios),
        relative_mce=None if relative is None else _mean_of_15(relative),
        mean_errors=means,
        corruption_errors=ratios,
        relative_corruption_errors=relative,
    )


def averaged_corruptions(corruptions: Sequence[str]) -> list[str]:
    """The corruptions that enter a mean: the standard ones, or else the extra ones."""
    return [name for name in corruptions if name in CORRUPTIONS] or list(corruptions)


def read_baseline(path: str | Path) -> dict[str, Sequence[float] | float]:
    """A baseline for `mean_corruption_error` from a file or from another run.

    Args:
      path: a JSON file of {corruption: error or five errors} with "clean", or a run directory
        whose robustness stage has measured all corruptions and severities.

    Raises:
      UserError: no such file or directory, invalid content, or a run's metrics.json that has
        changed since it was written.
    """
    file = expanded(path)
    run_dir = RunDir(file) if file.is_dir() else None
    if run_dir is not None:
        file = run_dir.metrics_file
    if not file.is_file():
        raise UserError(
            f"no baseline at {str(path)!r}: give a JSON file of errors, or a run directory "
            "whose robustness stage has finished"
        )
    results = run_dir.metrics() if run_dir is not None else None
    try:
        if results is None:
            return dict(json.loads(file.read_text()))
        measured = results["robustness"]
        if measured["severities"] == list(SEVERITIES):
            return {**measured["errors"], "clean": measured["clean_error"]}
    except (KeyError, TypeError, ValueError) as error:
        wanted = "{corruption: errors}" if results is None else "results of a robustness stage"
        raise UserError(f"{str(file)!r} has no {wanted}: {error}") from None
    raise UserError(
        f"{str(file)!r} has the severities {measured['severities']}: a baseline needs all of "
        f"{list(SEVERITIES)}"
    )


def _check_names(what: str, names: Collection[str]) -> None:
    known = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    for name in CORRUPTIONS:
        if name not in names:
            raise UserError(f"{what} must have all of {CORRUPTIONS}, {name!r} is missing")
    for name in names:
        if name not in known:
            raise UserError(f"{what} must be of {known}, got {name!r}")


def _mean_error(name: str, error: Sequence[float] | float) -> float:
    """The mean over the severities, or the mean that was given."""
    try:
        values = np.asarray(error, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} must have errors within [0, 1], got {error!r}") from None
    if values.shape not in ((), (len(SEVERITIES),)):
        raise UserError(
            f"{name} must have one error or one for each severity 1 to {len(SEVERITIES)}, "
            f"got {values.size}"
        )
    # Written as a negation, which also rejects NaN.
    if not np.all((values >= 0) & (values <= 1)):
        raise UserError(f"{name} must have errors within [0, 1], got {error}")
    return float(values.mean())


def _mean_of_15(percent: Mapping[str, float]) -> float:
    return float(np.mean([percent[name] for name in CORRUPTIONS]))
