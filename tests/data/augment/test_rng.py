"""SplitMix64 against Python integers; uniform, independent, the same alone and in a batch."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data.augment import rng

SEEDS = [0, 1, 7, -1, 123_456_789_012, 2**63 - 1, -(2**63)]
WRAP = 2**64


def mixed(state):
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % WRAP
    return state ^ (state >> 31)


def splitmix64(state, count):
    """The published generator: a counter with golden-ratio steps, mixed."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WRAP
        numbers.append(mixed(state))
    return numbers


def bits(seed, count):
    return splitmix64(mixed(seed % WRAP), count)


def test_reference_loop_gives_the_published_numbers():
    # The first outputs of Java's SplittableRandom and of the C code for the state 1234567.
    assert splitmix64(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_split_and_uniforms_equal_the_loop(seed):
    expected = bits(seed, 20)
    np.testing.assert_array_equal(rng.split(seed, 20).numpy().view(np.uint64), expected)
    numbers = rng.uniforms(seed, 20)
    assert numbers.dtype == tf.float32
    np.testing.assert_array_equal(
        numbers.numpy().astype(np.float64), [(number >> 40) / 2**24 for number in expected]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_fold_in_equals_one_entry_of_split(seed):
    seeds = rng.split(seed, 9)
    for number in range(9):
        assert rng.fold_in(seed, number).shape == ()
        assert int(rng.fold_in(seed, number)) == int(seeds[number])
    np.testing.assert_array_equal(rng.fold_in(seed, tf.range(9, dtype=tf.int64)), seeds)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_batch_equals_single_seeds(compiled):
    seeds = tf.constant(np.reshape([*SEEDS, 5], [2, 4]), tf.int64)
    numbers = tf.constant([[3], [8]], tf.int64)

    def all_at_once(seeds, numbers):
        return rng.uniforms(seeds, 5), rng.split(seeds, 5), rng.fold_in(seeds, numbers)

    function = tf.function(all_at_once, jit_compile=True) if compiled else all_at_once
    uniform, split, folded = function(seeds, numbers)
    assert uniform.shape == (2, 4, 5)
    assert split.shape == (2, 4, 5)
    assert folded.shape == (2, 4)
    for row, column in itertools.product(range(2), range(4)):
        seed = int(seeds[row, column])
        np.testing.assert_array_equal(uniform[row, column], rng.uniforms(seed, 5))
        np.testing.assert_array_equal(split[row, column], rng.split(seed, 5))
        assert int(folded[row, column]) == int(rng.fold_in(seed, numbers[row, 0]))


def test_numbers_are_uniform_along_both_axes():
    table = rng.uniforms(tf.range(4000, dtype=tf.int64), 40).numpy()
    assert table.min() >= 0.0
    assert table.max() < 1.0
    counts = np.histogram(table, bins=200, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    p_along_seeds = [stats.kstest(column, "uniform").pvalue for column in table.T]
    p_along_numbers = [stats.kstest(row, "uniform").pvalue for row in table[::40]]
    for p_values in (p_along_seeds, p_along_numbers):
        # p-values of uniform numbers are themselves uniform.
        assert min(p_values) > 1e-4
        assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_neighbouring_seeds_and_numbers_are_independent():
    table = rng.uniforms(tf.range(4000, dtype=tf.int64), 40).numpy().astype(np.float64)
    pairs = {
        "numbers": (table[:, :-1], table[:, 1:]),
        "seeds": (table[:-1], table[1:]),
        "both": (table[:-1, :-1], table[1:, 1:]),
    }
    for first, second in pairs.values():
        joint = np.histogram2d(first.ravel(), second.ravel(), bins=16, range=[[0, 1]] * 2)[0]
        assert stats.chisquare(joint.ravel()).pvalue > 1e-3


def test_split_seeds_are_distinct_and_independent():
    seeds = rng.split(tf.range(2000, dtype=tf.int64), 8)
    deeper = rng.split(seeds, 4)
    everything = np.concatenate([np.ravel(seeds), np.ravel(deeper), np.arange(2000)])
    assert len(set(everything.tolist())) == len(everything)
    first_numbers = rng.uniforms(seeds, 1).numpy()[..., 0].astype(np.float64)
    correlations = np.corrcoef(first_numbers.T) - np.eye(8)
    # 2,000 pairs: standard deviation 0.022; 28 correlations.
    assert np.abs(correlations).max() < 0.09
    counts = np.histogram(first_numbers, bins=100, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
