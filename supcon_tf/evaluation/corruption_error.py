"""The mean corruption error of ImageNet-C."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from supcon_tf.data.corruptions.imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from supcon_tf.errors import UserError

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
    """What `mean_corruption_error` found.

    Args:
      mce: mean of the 15 corruption errors, in percent of the baseline's.
      relative_mce: the same of what corruption adds to the clean error; None without that.
      mean_errors: of each corruption given, the mean over severities, a fraction.
      corruption_errors: of each corruption that the baseline has too, in percent.
      relative_corruption_errors: the same; None without the clean error.
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
    """Errors on ImageNet-C, each in percent of a baseline's, and their mean.

    CE_c = sum_s E_s,c / sum_s B_s,c and relative CE_c = sum_s (E_s,c - E_clean) /
    sum_s (B_s,c - B_clean), over the severities s; mCE and relative mCE are the means over the
    15 corruptions c. Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to
    Common Corruptions and Perturbations".

    Args:
      errors: corruption -> top-1 error at severities 1 to 5, or their mean; fractions. The 15 of
        `data.corruptions.CORRUPTIONS`; the 4 extra ones may be there and do not enter the means.
      clean_error: on the images without corruption.
      baseline: "alexnet", or corruption -> errors as above and, for the relative error, "clean" ->
        clean error; `read_baseline` reads such from a file.

    Raises:
      UserError: a corruption that is missing or unknown, not five severities, an error outside
        [0, 1], or a baseline that cannot be divided by.

    Example:
      >>> from supcon_tf.data.corruptions.imagenet_c import CORRUPTIONS
      >>> from supcon_tf.evaluation import mean_corruption_error
      >>> halved = mean_corruption_error(
      ...     dict.fromkeys(CORRUPTIONS, 0.2), baseline=dict.fromkeys(CORRUPTIONS, 0.4))
      >>> halved.mce
      50.0
    """
    if isinstance(baseline, str):
        if baseline != "alexnet":
            raise UserError(
                f"baseline must be 'alexnet' or a mapping, got {baseline!r}: of a file or a run's "
                "folder, read_baseline makes one"
            )
        baseline = ALEXNET
    _check_names("errors", errors)
    _check_names("baseline", [name for name in baseline if name != "clean"])
    own = {name: _mean_error(name, error) for name, error in errors.items()}
    theirs = {name: _mean_error(f"baseline {name}", error) for name, error in baseline.items()}

    def percent_of_baseline(clean: float, clean_of_baseline: float) -> dict[str, float]:
        percent = {}
        for name in own:
            if name not in theirs:
                continue
            of_baseline = theirs[name] - clean_of_baseline
            if of_baseline <= 0:
                raise UserError(
                    f"the baseline's error of {name!r} must be > {clean_of_baseline}, "
                    f"got {theirs[name]}"
                )
            percent[name] = 100 * ((own[name] - clean) / of_baseline)
        return percent

    ratios = percent_of_baseline(0.0, 0.0)
    relative = None
    if clean_error is not None:
        if "clean" not in theirs:
            raise UserError("baseline must have 'clean' where clean_error is given: add it")
        relative = percent_of_baseline(_mean_error("clean_error", clean_error), theirs["clean"])
    return CorruptionError(
        mce=_mean_of_15(ratios),
        relative_mce=None if relative is None else _mean_of_15(relative),
        mean_errors=own,
        corruption_errors=ratios,
        relative_corruption_errors=relative,
    )


def averaged_corruptions(corruptions: Sequence[str]) -> list[str]:
    """Those that a mean is over: of the 15, or where there is none of them the extra ones."""
    return [name for name in corruptions if name in CORRUPTIONS] or list(corruptions)


def read_baseline(path: str | Path) -> dict[str, Sequence[float] | float]:
    """A baseline for `mean_corruption_error` from a file or from another run.

    Args:
      path: a JSON file of {corruption: error or five errors} and "clean", or a run's folder, whose
        robustness stage has measured all of it.

    Raises:
      UserError: neither is there.
      UserError: no such numbers in it.
    """
    file = Path(path).expanduser()
    is_run = file.is_dir()
    if is_run:
        file = file / "metrics.json"
    if not file.is_file():
        raise UserError(
            f"no baseline at {str(path)!r}: give a JSON file of errors, or the folder of a run "
            "whose robustness stage has finished"
        )
    try:
        content = json.loads(file.read_text())
        if not is_run:
            return dict(content)
        measured = content["robustness"]
        if measured["severities"] == list(SEVERITIES):
            return {**measured["errors"], "clean": measured["clean_error"]}
    except (KeyError, TypeError, ValueError) as error:
        wanted = "results of a robustness stage" if is_run else "{corruption: errors}"
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
    """The mean over severities, also of a mean."""
    values = np.asarray(error, np.float64)
    if values.shape not in ((), (len(SEVERITIES),)):
        raise UserError(
            f"{name} must have one error or one for each severity 1 to {len(SEVERITIES)}, "
            f"got {values.size}"
        )
    # Negated, so that NaN is refused.
    if not np.all((values >= 0) & (values <= 1)):
        raise UserError(f"{name} must have errors within [0, 1], got {error}")
    return float(values.mean())


def _mean_of_15(percent: Mapping[str, float]) -> float:
    return float(np.mean([percent[name] for name in CORRUPTIONS]))
