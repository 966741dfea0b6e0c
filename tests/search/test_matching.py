"""Match thresholds on hand-made scores and against a loop over thresholds."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.search import match_threshold


def test_threshold_of_hand_made_scores():
    similarities = np.array([0.5, 0.9, 0.8, 0.7, 0.6])
    is_right = np.array([False, True, True, False, True])
    # Precisions from the top: 1/1, 2/2, 2/3, 3/4, 3/5.
    found = match_threshold(similarities, is_right, precision=0.75)
    assert (found.similarity, found.precision, found.recall) == (0.6, 0.75, 1.0)
    assert (found.num_matches, found.num_images) == (4, 5)
    found = match_threshold(similarities, is_right, precision=0.8)
    assert (found.similarity, found.precision, found.recall) == (0.8, 1.0, 2 / 3)


def test_images_of_equal_similarity_match_together():
    found = match_threshold(np.array([0.9, 0.9, 0.8]), np.array([True, False, True]), precision=0.6)
    # 0.9 has a precision of 1/2 whichever of both comes first.
    assert (found.similarity, found.precision) == (0.8, 2 / 3)


def test_a_precision_that_no_threshold_reaches_is_reported():
    found = match_threshold(np.array([0.9, 0.8, 0.7]), np.array([False, True, True]), precision=0.9)
    assert found.similarity is None
    assert (found.precision, found.recall, found.num_matches) == (2 / 3, 0.0, 0)


@pytest.mark.parametrize("precision", [0.3, 0.6, 0.9])
def test_threshold_equals_a_loop(precision):
    rng = np.random.default_rng(3)
    similarities = rng.integers(0, 40, 200) / 40
    is_right = rng.random(200) < similarities
    found = match_threshold(similarities, is_right, precision=precision)
    reached = []
    for threshold in set(similarities):
        matches = [right for s, right in zip(similarities, is_right, strict=True) if s >= threshold]
        if sum(matches) / len(matches) >= precision:
            reached.append((threshold, sum(matches) / len(matches), sum(matches) / sum(is_right)))
    assert (found.similarity, found.precision, found.recall) == pytest.approx(min(reached))


@pytest.mark.parametrize("precision", [0, 1.5, float("nan"), "high"])
def test_precisions_out_of_range_are_rejected(precision):
    with pytest.raises(UserError, match="precision must be a number > 0 and <= 1"):
        match_threshold(np.array([0.5]), np.array([True]), precision=precision)


def test_shapes_that_disagree_are_rejected():
    with pytest.raises(UserError, match=r"shapes \(2,\) and \(1,\)"):
        match_threshold(np.array([0.5, 0.4]), np.array([True]))
