"""AUROC and FPR95 against loops over pairs."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.search import detection
from supcon_tf.search.detection import keeping


def test_auroc_and_fpr95_equal_loops():
    rng = np.random.default_rng(0)
    # Rounded, so that there are ties.
    known, unknown = rng.normal(size=80).round(1), rng.normal(1, 1, size=50).round(1)
    wins = sum((u > k) + (u == k) / 2 for u in unknown for k in known)
    # The lowest score that 95 % of the known images do not exceed.
    threshold = min(t for t in known if sum(k <= t for k in known) >= 0.95 * len(known))
    found = detection(known, unknown)
    assert found.auroc == pytest.approx(wins / (80 * 50), abs=1e-12)
    assert found.fpr95 == sum(u <= threshold for u in unknown) / 50


def test_detection_of_separate_and_of_equal_scores():
    assert (detection([1, 2], [3, 4]).auroc, detection([1, 2], [3, 4]).fpr95) == (1, 0)
    assert (detection([1, 1], [1, 1]).auroc, detection([1, 1], [1, 1]).fpr95) == (0.5, 1)


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
