import numpy as np
import pytest

from supcon_tf.evaluation import expected_calibration_error


def loop(probabilities, labels, bins):
    """sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|, bin by bin."""
    rows = np.asarray(probabilities, np.float64)
    total = 0.0
    for m in range(1, bins + 1):
        hits, confidences = [], []
        for row, label in zip(rows, labels, strict=True):
            guess = max(range(len(row)), key=lambda c: (row[c], -c))
            lower = -np.inf if m == 1 else (m - 1) / bins
            if lower < row[guess] <= m / bins:
                hits.append(float(guess == label))
                confidences.append(row[guess])
        if hits:
            gap = abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
            total += len(hits) / len(rows) * gap
    return total


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
@pytest.mark.parametrize("classes", [2, 7])
def test_equals_the_loop_over_bins(bins, classes):
    generator = np.random.default_rng(bins)
    probabilities = generator.dirichlet(np.full(classes, 0.5), size=60)
    labels = generator.integers(0, classes, 60)
    expected = loop(probabilities, labels, bins)
    assert expected > 0
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_over_and_under_confidence_do_not_cancel_between_bins():
    # Two at 0.95 of which one is right, two at 0.6 that are both right.
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    apart = 0.5 * (0.95 - 0.5) + 0.5 * (1 - 0.6)
    together = abs(0.75 - (0.95 + 0.6) / 2)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(apart)
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(together)


def test_a_bin_holds_its_upper_edge_and_not_its_lower():
    # At two bins 0.5 is in the first with the 0.4 (gaps -0.5 and +0.6 cancel to 0.1), not with
    # the 0.9.
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0]])
    labels = np.array([1, 0, 0])
    error = expected_calibration_error(probabilities, labels, 2)
    assert error == pytest.approx((abs(-0.5 + 0.6) + 0.1) / 3)


def test_certainty_counts_fully_when_wrong_and_not_when_right():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(certain, np.array([0, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0])) == 1


def test_confidence_of_zero_belongs_to_the_first_bin():
    nothing = np.zeros((4, 3))
    assert expected_calibration_error(nothing, np.array([0, 1, 1, 1])) == 0.25


def test_a_float32_softmax_that_exceeds_one_by_rounding_is_taken():
    above = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], np.float32)
    assert above.max() > 1
    assert expected_calibration_error(above, np.array([0])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "bins", "message"),
    [
        ([[2.0, -1.0]], 15, r"within \[0, 1\], got \[-1.0, 2.0\]"),
        ([[np.nan, 0.5]], 15, "within"),
        ([[0.5, 0.5]], 0, "bins=0"),
    ],
)
def test_what_cannot_be_is_refused(probabilities, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(np.array(probabilities), np.array([0]), bins)


def test_no_example_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        expected_calibration_error(np.zeros((0, 2)), np.zeros(0, int))
