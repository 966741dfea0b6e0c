"""Random numbers as a function of an integer seed, for one image or a batch of seeds at once.

`tf.random.stateless_uniform` takes one seed per call, so a batch of images with a seed each would
need a loop. This is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"): ten integer operations on all seeds together, the same numbers on every device.
"""

import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15


def split(seed: int | tf.Tensor, count: int) -> tf.Tensor:
    """Seeds for `count` uses that have nothing to do with one another.

    Args:
      seed: int64 [...].
      count: how many.

    Returns:
      int64 [..., count].

    Example:
      >>> from supcon_tf.data.augment import draws
      >>> draws.split(7, 3).shape
      TensorShape([3])
    """
    return tf.bitcast(_bits(seed, tf.range(count, dtype=tf.int64)), tf.int64)


def fold_in(seed: int | tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """The seed for this number: `split(seed, n)[..., number]` for any n above it.

    Args:
      seed: int64 [...].
      number: int64 [...], of a shape that can be broadcast with the seed's.
    """
    numbers = tf.convert_to_tensor(number, tf.int64)[..., None]
    return tf.bitcast(_bits(seed, numbers), tf.int64)[..., 0]


def uniforms(seed: int | tf.Tensor, count: int) -> tf.Tensor:
    """Multiples of 2^-24 in [0, 1), float32 [..., count] for a seed int64 [...]."""
    bits = _bits(seed, tf.range(count, dtype=tf.int64))
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.int32)
    return tf.cast(high, tf.float32) * 2.0**-24


def _bits(seed: int | tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    # uint64 [..., n]; sums and products wrap around.
    state = _mix(tf.bitcast(tf.convert_to_tensor(seed, tf.int64), tf.uint64))[..., None]
    steps = tf.bitcast(numbers + 1, tf.uint64) * tf.constant(_GOLDEN, tf.uint64)
    return _mix(state + steps)


def _mix(state: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(state, tf.constant(shift, tf.uint64))
        state = tf.bitwise.bitwise_xor(state, shifted) * tf.constant(factor, tf.uint64)
    last = tf.bitwise.right_shift(state, tf.constant(31, tf.uint64))
    return tf.bitwise.bitwise_xor(state, last)
