"""Areas under risk-coverage curves against loops over all orders of ties."""

import itertools

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import augrc, aurc
from supcon_tf.evaluation.selective import RiskCoverage


def loops(confidences, is_right):
    """AURC and AUGRC of one order of the examples, stable among equal confidences."""
    order = sorted(range(len(confidences)), key=lambda i: -confidences[i])
    n, errors, risks, generalized = len(order), 0, [], [0.0]
    for k, i in enumerate(order, start=1):
        errors += not is_right[i]
        risks.append(errors / k)
        generalized.append(errors / n)
    area = sum((low + high) / 2 for low, high in itertools.pairwise(generalized)) / n
    return sum(risks) / n, area


def test_areas_equal_loops_over_coverages():
    rng = np.random.default_rng(0)
    confidences, is_right = rng.normal(size=40), rng.uniform(size=40) < 0.7
    expected = loops(confidences, is_right)
    assert (aurc(confidences, is_right), augrc(confidences, is_right)) == pytest.approx(expected)


def test_ties_give_the_mean_over_all_their_orders():
    confidences = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    is_right = np.array([True, False, True, True, False, True])
    orders = [[0, *middle, 5] for middle in itertools.permutations(range(1, 5))]
    areas = [loops(confidences[order], is_right[order]) for order in orders]
    assert len(set(areas)) > 1
    for order in orders[:6]:
        found = (
            aurc(confidences[order], is_right[order]),
            augrc(confidences[order], is_right[order]),
        )
        assert found == pytest.approx(np.mean(areas, axis=0))


def test_augrc_follows_from_accuracy_and_auroc():
    rng = np.random.default_rng(1)
    confidences, is_right = rng.normal(size=60).round(1), rng.uniform(size=60) < 0.6
    right, wrong = confidences[is_right], confidences[~is_right]
    auroc = np.mean([(r > w) + (r == w) / 2 for r in right for w in wrong])
    a = is_right.mean()
    expected = (1 - auroc) * a * (1 - a) + (1 - a) ** 2 / 2
    assert augrc(confidences, is_right) == pytest.approx(expected, rel=1e-12)


def test_constant_confidences_give_the_error_rate():
    is_right = np.arange(10) >= 3
    assert aurc(np.zeros(10), is_right) == pytest.approx(0.3)
    assert augrc(np.zeros(10), is_right) == pytest.approx(0.3 / 2)


def test_counts_are_repeated_examples():
    rng = np.random.default_rng(2)
    confidences, is_right = rng.normal(size=12).round(1), rng.uniform(size=12) < 0.5
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=5)
    aurcs, augrcs = RiskCoverage(confidences, is_right).areas(counts)
    for row, *found in zip(counts, aurcs, augrcs, strict=True):
        repeated = np.repeat(confidences, row), np.repeat(is_right, row)
        assert found == pytest.approx([aurc(*repeated), augrc(*repeated)])


@pytest.mark.parametrize("measure", [aurc, augrc])
@pytest.mark.parametrize(
    ("confidences", "is_right", "message"),
    [
        ([0.5, np.nan], [True, False], "confidences must be numbers, got NaN in 1 of 2"),
        ([0.5, 0.5], [True], r"got shapes \(2,\) and \(1,\)"),
        ([], [], r"n >= 1, got shapes \(0,\)"),
        ([0.5], [3], "is_right must be bool, got 3"),
        (["high"], [True], "confidences must be numbers, got <U4"),
    ],
)
def test_invalid_confidences_are_rejected(measure, confidences, is_right, message):
    with pytest.raises(UserError, match=message):
        measure(np.array(confidences), np.array(is_right))
