"""Stateless random numbers for a batch of integer seeds.

`tf.random.stateless_uniform` takes one seed per call, so a batch with one seed per image would need
a loop. This is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"): ten integer operations on all seeds at once, with the same results on every device.
"""

import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15


def split(seed: int | tf.Tensor, count: int) -> tf.Tensor:
    """Derives `count` independent seeds from each seed.

    Args:
      seed: int64 [...].
      count: number of seeds to derive.

    Returns:
      int64 [..., count].

    Example:
      >>> from supcon_tf.data.augment import rng
      >>> rng.split(7, 3).shape
      TensorShape([3])
    """
    return tf.bitcast(_bits(seed, tf.range(count, dtype=tf.int64)), tf.int64)


def fold_in(seed: int | tf.Tensor, index: int | tf.Tensor) -> tf.Tensor:
    """Derives the seed with this index: `split(seed, n)[..., index]` for any n > index.

    Args:
      seed: int64 [...].
      index: int64 [...], broadcast against the seed.

    Returns:
      int64 [...].
    """
    indices = tf.convert_to_tensor(index, tf.int64)[..., None]
    return tf.bitcast(_bits(seed, indices), tf.int64)[..., 0]


def uniforms(seed: int | tf.Tensor, count: int) -> tf.Tensor:
    """Uniform multiples of 2^-24 in [0, 1): seed int64 [...] -> float32 [..., count]."""
    bits = _bits(seed, tf.range(count, dtype=tf.int64))
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.int32)
    return tf.cast(high, tf.float32) * 2.0**-24


def _bits(seed: int | tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    # [..., n] -> uint64 [..., n]; sums and products wrap around.
    state = _mix(tf.bitcast(tf.convert_to_tensor(seed, tf.int64), tf.uint64))[..., None]
    steps = tf.bitcast(indices + 1, tf.uint64) * tf.constant(_GOLDEN, tf.uint64)
    return _mix(state + steps)


def _mix(state: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(state, tf.constant(shift, tf.uint64))
        state = tf.bitwise.bitwise_xor(state, shifted) * tf.constant(factor, tf.uint64)
    last = tf.bitwise.right_shift(state, tf.constant(31, tf.uint64))
    return tf.bitwise.bitwise_xor(state, last)
