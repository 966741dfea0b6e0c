"""The results of a calibration, as lines for the console."""

from supcon_tf.search.calibration import Calibration
from supcon_tf.search.index import Index
from supcon_tf.search.matching import MatchThreshold

# A threshold of fewer images is called uncertain. If 20 of 20 matches are right, the precision is
# still only above 0.86 with a confidence of 95 % (0.05 ** (1 / 20)).
_FEW_IMAGES = 20


def summary(index: Index) -> str:
    """The match threshold, the unknown threshold, and how well unknown images are detected.

    Args:
      index: a calibrated index.
    """
    calibration = index.calibration
    assert calibration is not None
    lines = []
    if calibration.match is not None:
        lines.append(_match_line(calibration.match))
    elif calibration.classes:
        lines.append("match: no threshold, as the index has only one class")
    lines.append(
        f"unknown: {calibration.unknown_score} score > "
        f"{calibration.thresholds[calibration.unknown_score]:.4g}, which keeps "
        f"{calibration.known_share:g} of {calibration.num_images} calibration images as known"
        f"{', so few that it is uncertain' * (calibration.num_images < _FEW_IMAGES)}"
    )
    lines += [
        f"{calibration.num_unknown} unknown images, {name} score: AUROC {measured.auroc:.3f}, "
        f"FPR95 {measured.fpr95:.3f}, AUPR {measured.aupr:.3f}"
        for name, measured in calibration.detection.items()
    ]
    if (warning := class_warning(index)) is not None:
        lines.append(warning)
    return "\n".join(lines + _detection_advice(calibration))


def class_warning(index: Index) -> str | None:
    """Names a class for which a calibrated index may be wrong: see `changed_classes`."""
    if index.changed_classes:
        return (
            f"warning: the class {index.changed_classes[0]!r} was added to the index or removed "
            "from it after its calibration, so is_unknown may be wrong: call calibrate, as "
            "docs/search.md shows"
        )
    if not index.small_classes:
        return None
    assert index.calibration is not None
    return (
        f"warning: the class {index.small_classes[0]!r} has at most k = "
        f"{index.calibration.num_neighbors} images, so the knn score may call its new images "
        "unknown: add images, or choose a smaller --num_neighbors or --unknown_score=mahalanobis"
    )


def _detection_advice(calibration: Calibration) -> list[str]:
    """What to do if the chosen score is no better than chance, or worse than the other one."""
    if min(calibration.num_unknown, calibration.num_images) < _FEW_IMAGES:
        return []
    auroc = {name: measured.auroc for name, measured in calibration.detection.items()}
    best = max(auroc, key=lambda name: auroc[name])
    if auroc[best] <= 0.5:
        return ["no score separates these unknown images better than chance: ignore is_unknown"]
    if auroc[best] - auroc[calibration.unknown_score] >= 0.01:
        return [f"{best} has the higher AUROC here: --unknown_score={best} chooses it"]
    return []


def _match_line(match: MatchThreshold) -> str:
    if match.similarity is None:
        return (
            f"match: no similarity reaches a precision of {match.wanted_precision:g}, highest "
            f"{match.precision:.3f}: no image is called a match, lower --precision"
        )
    return (
        f"match: similarity >= {match.similarity:.4f} has a precision of {match.precision:.3f} and "
        f"a recall of {match.recall:.3f} ({match.num_matches} of {match.num_images} calibration "
        f"images{', so few that it is uncertain' * (match.num_matches < _FEW_IMAGES)})"
    )
