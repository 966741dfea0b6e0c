"""Bootstrap intervals against a loop over resamples and the normal approximation."""

import math

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.evaluation import bootstrap, bootstrap_difference, bootstrap_interval


def test_the_interval_has_the_quantiles_of_the_resampled_means(monkeypatch):
    values = np.random.default_rng(0).normal(size=20)
    drawn = np.random.default_rng(3).integers(0, 20, (50, 20))
    means = sorted(sum(values[i] for i in row) / 20 for row in drawn)
    # Of 50 sorted means, the quantile q is at position 49 q.
    low, high = (np.interp(49 * q, np.arange(50), means) for q in (0.1, 0.9))
    for block in (2**18, 45):  # Also in blocks of two resamples.
        monkeypatch.setattr(bootstrap, "_MAX_BLOCK", block)
        found = bootstrap_interval(values, level=0.8, resamples=50, seed=3)
        assert (found.low, found.high) == pytest.approx((low, high))
        assert found.value == pytest.approx(values.mean())


def test_the_interval_of_an_accuracy_is_near_the_normal_approximation():
    is_right = np.arange(2000) < 1600
    found = bootstrap_interval(is_right)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 2000)
    assert (found.low, found.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.1 * half)
    assert found == bootstrap_interval(is_right)
    assert found != bootstrap_interval(is_right, seed=1)


def test_a_paired_difference_draws_the_same_images_for_both():
    rng = np.random.default_rng(0)
    first = rng.normal(size=200)
    second = first + rng.normal(0.05, 0.01, size=200)
    found = bootstrap_difference(first, second)
    assert found.value == pytest.approx(np.mean(first - second))
    assert found.low < found.value < found.high < 0
    # Each run alone is uncertain by far more than the difference.
    alone = bootstrap_interval(first)
    assert found.high - found.low < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, r"values must be numbers \[n\] with n >= 1, got float64 of shape \(0,\)"),
        ([[1.0]], {}, r"got float64 of shape \(1, 1\)"),
        (["a"], {}, r"values must be numbers \[n\]"),
        ([1.0, np.nan], {}, "values must be finite, got nan"),
        ([1.0], {"level": 1.0}, "level must be a number > 0 and < 1, got 1.0"),
        ([1.0], {"resamples": 0}, "resamples must be an integer >= 1, got 0"),
        ([1.0], {"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_invalid_values_and_options_are_rejected(values, options, message):
    with pytest.raises(UserError, match=message):
        bootstrap_interval(np.array(values), **options)


def test_a_difference_needs_the_same_number_of_images():
    with pytest.raises(UserError, match="same images, got 2 and 1 values"):
        bootstrap_difference(np.ones(2), np.ones(1))
