"""Calibration errors against loops."""

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import expected_calibration_error, reliability


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
    # Two at 0.95, one of them right; two at 0.6, both right.
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


def test_certain_predictions_have_error_zero_when_right_and_one_when_wrong():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(certain, np.array([0, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0])) == 1


def test_confidence_of_zero_belongs_to_the_first_bin():
    nothing = np.zeros((4, 3))
    assert expected_calibration_error(nothing, np.array([0, 1, 1, 1])) == 0.25


def test_a_float32_softmax_that_exceeds_one_by_rounding_is_accepted():
    above = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], np.float32)
    assert above.max() > 1
    assert expected_calibration_error(above, np.array([0])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "bins", "message"),
    [
        ([[2.0, -1.0]], 15, r"within \[0, 1\], got -1.0: apply a softmax"),
        ([[2.0, 0.0]], 15, r"within \[0, 1\], got 2.0: apply a softmax"),
        ([[np.nan, 0.5]], 15, "got NaN in 1 of 1 rows"),
        ([[0.5, 0.5], [0.5, 0.5]], 15, "need 2 labels, got 1"),
        (np.zeros((0, 2)), 15, r"n >= 1 and C >= 1, got float64 of shape \(0, 2\)"),
        ([0.5], 15, r"got float64 of shape \(1,\)"),
        ([[0.5, 0.5]], 0, "bins must be an integer >= 1, got 0"),
        ([[0.5, 0.5]], 2.5, "bins must be an integer >= 1, got 2.5"),
    ],
)
def test_invalid_probabilities_and_bins_are_rejected(probabilities, bins, message):
    with pytest.raises(UserError, match=message):
        expected_calibration_error(np.array(probabilities), np.array([0]), bins)


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_outside_the_classes_is_rejected(label):
    with pytest.raises(UserError, match=f"labels must be within 0 to 1, got {label}"):
        expected_calibration_error(np.array([[0.5, 0.5]]), np.array([label]))


@pytest.mark.parametrize(
    ("confidences", "is_right", "message"),
    [
        ([0.5, np.nan], [True, False], "within .* got nan"),
        ([0.5, 0.5], [True], r"got shapes \(2,\) and \(1,\)"),
        ([], [], r"n >= 1, got shapes \(0,\)"),
        ([0.5], [3], "is_right must be bool, got 3"),
    ],
)
def test_invalid_confidences_are_rejected(confidences, is_right, message):
    with pytest.raises(UserError, match=message):
        reliability(np.array(confidences), np.array(is_right))


def test_diagrams_with_other_numbers_of_bins_cannot_be_added():
    one, two = (reliability(np.array([0.5]), np.array([True]), bins=bins) for bins in (1, 15))
    with pytest.raises(UserError, match="same number of bins, got 1 and 15"):
        _ = one + two


def test_labels_may_be_a_column():
    probabilities, labels = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0])
    column = labels[:, None].astype(np.uint8)
    assert expected_calibration_error(probabilities, column) == pytest.approx((0.1 + 0.6) / 2)
    with pytest.raises(
        UserError, match=r"labels must be integers .* got float64 of shape \(2, 2\)"
    ):
        expected_calibration_error(probabilities, np.eye(2))


def equal_mass_loop(confidences, is_right, bins):
    """Bin m ends at the ceil(n m / bins)-th smallest confidence; equal ones share a bin."""
    ordered = sorted(confidences)
    edges = [ordered[-(-len(ordered) * m // bins) - 1] for m in range(1, bins)]
    groups = [[] for _ in range(bins)]
    for confidence, right in zip(confidences, is_right, strict=True):
        groups[sum(confidence > edge for edge in edges)].append((confidence, right))
    gaps = (abs(sum(right - confidence for confidence, right in group)) for group in groups)
    return sum(gaps) / len(confidences), [len(group) for group in groups]


@pytest.mark.parametrize("bins", [1, 3, 7, 60])
@pytest.mark.parametrize("decimals", [9, 1])
def test_equal_mass_bins_equal_the_loop(bins, decimals):
    generator = np.random.default_rng(bins)
    confidences = generator.uniform(size=50).round(decimals)
    is_right = generator.uniform(size=50) < confidences
    found = reliability(confidences, is_right, bins=bins, binning="equal_mass")
    error, counts = equal_mass_loop(confidences.tolist(), is_right.tolist(), bins)
    assert found.error == pytest.approx(error)
    assert found.counts.tolist() == counts
    if decimals == 9:
        assert max(counts) - min(counts) <= 1
    # Nothing depends on the order of the examples, ties or not.
    order = generator.permutation(50)
    again = reliability(confidences[order], is_right[order], bins=bins, binning="equal_mass")
    assert again.error == pytest.approx(found.error)


def test_both_binnings_are_options_of_the_error():
    probabilities = np.random.default_rng(0).dirichlet(np.full(3, 0.5), size=40)
    labels = np.random.default_rng(1).integers(0, 3, 40)
    is_right = probabilities.argmax(axis=1) == labels
    expected, _ = equal_mass_loop(probabilities.max(axis=1).tolist(), is_right.tolist(), 15)
    error = expected_calibration_error(probabilities, labels, binning="equal_mass")
    assert error == pytest.approx(expected)
    assert error != pytest.approx(expected_calibration_error(probabilities, labels))


def test_diagrams_of_parts_add_up_to_the_whole():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(size=50)
    is_right = generator.uniform(size=50) < 0.5
    first, second = (
        reliability(confidences[part], is_right[part]) for part in (slice(20), slice(20, 50))
    )
    whole = reliability(confidences, is_right)
    for name in ("counts", "confidences", "hits"):
        np.testing.assert_allclose(getattr(first + second, name), getattr(whole, name))
    assert whole.counts.sum() == 50
    assert whole.hits.sum() == is_right.sum()


def test_unknown_binning_is_rejected():
    with pytest.raises(UserError, match=r"binning must be one of .* got 'quantile'"):
        reliability(np.array([0.5]), np.array([True]), binning="quantile")
