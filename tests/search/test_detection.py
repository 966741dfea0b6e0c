"""AUROC, FPR95 and AUPR against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from supcon_tf.errors import UserError
from supcon_tf.search import Detection, detection
from supcon_tf.search.detection import keeping


def test_measures_equal_loops():
    rng = np.random.default_rng(0)
    # Rounded, so that there are ties.
    known, unknown = rng.normal(size=80).round(1), rng.normal(1, 1, size=50).round(1)
    wins = sum((u > k) + (u == k) / 2 for u in unknown for k in known)
    # The lowest score that 95 % of the known images do not exceed.
    threshold = min(t for t in known if sum(k <= t for k in known) >= 0.95 * len(known))
    found = detection(known, unknown)
    assert found.auroc == pytest.approx(wins / (80 * 50), abs=1e-12)
    assert found.fpr95 == sum(u <= threshold for u in unknown) / 50
    is_unknown = np.repeat([0, 1], [80, 50])
    theirs = average_precision_score(is_unknown, np.concatenate([known, unknown]))
    assert found.aupr == pytest.approx(theirs, rel=1e-12)


def test_detection_of_separate_and_of_equal_scores():
    assert detection([1, 2], [3, 4]) == Detection(auroc=1, fpr95=0, aupr=1)
    assert detection([1, 1, 1], [1]) == Detection(auroc=0.5, fpr95=1, aupr=1 / 4)


@pytest.mark.parametrize("count", [1, 7, 20, 100])
def test_threshold_keeps_the_share_and_not_more_than_needed(count):
    scores = np.random.default_rng(1).permutation(count).astype(float)
    threshold = keeping(scores, 0.95)
    assert (scores <= threshold).sum() == int(np.ceil(0.95 * count - 1e-9))


def test_scores_that_are_missing_or_nan_are_rejected():
    with pytest.raises(
        UserError, match=r"scores of known images must be numbers \[n\] with n >= 1"
    ):
        detection([], [1.0])
    with pytest.raises(UserError, match=r"scores of unknown images .* with NaN"):
        detection([1.0], [float("nan")])
