"""AugMix: an image mixed with chains of operations on it."""

import tensorflow as tf

from supcon_tf.data.augment.batching import on_images
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, apply_in_turn, parameter
from supcon_tf.data.augment.rng import split, uniforms
from supcon_tf.errors import UserError

# A third of the side at 224 px; what the evaluation's corruptions also do is left out.
_RANGES = Ranges(translate=224 / 3)
_NAMES = (
    "AutoContrast",
    "Equalize",
    "Posterize",
    "Rotate",
    "Solarize",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
_LONGEST = 3


def augmix(
    image: tf.Tensor, *, seed: int | tf.Tensor, severity: float = 3.0, chains: int = 3
) -> tf.Tensor:
    """AugMix: the image, blended with a mixture of differently augmented copies of it.

    Hendrycks et al. 2020, "AugMix: A Simple Data Processing Method to Improve Robustness and
    Uncertainty", arXiv 1912.02781, without its consistency loss. Each chain is one to three of
    nine operations, each at a level uniform in [0.1, severity] of 10; the chains' weights are
    uniform over those that add up to one, and so is the share of the mixture in the result.
    Angles and shifts are not rounded to whole degrees and pixels, as they are in the authors' code.

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped. The operations see it rounded to
        bytes.
      seed: int64 [...]; the same seed gives the same image.
      severity: the highest level, 0.1 to 10.
      chains: number of chains, >= 1.

    Returns:
      float32 [..., H, W, 3] in [0, 1].

    Raises:
      UserError: severity or chains is not as described.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.augmix(image, seed=[1, 2, 3, 4]).shape
      TensorShape([4, 32, 32, 3])
    """
    if not 0.1 <= severity <= 10:
        raise UserError(f"severity must be in [0.1, 10], got {severity}")
    if chains < 1:
        raise UserError(f"chains must be >= 1, got {chains}")
    operations = tf.constant([OPERATIONS.index(name) for name in _NAMES])
    # Every parameter is linear in the level but for whole numbers, of which less is more.
    full = tf.constant([parameter(name, 10, _RANGES) for name in _NAMES])

    def mixed(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        weight_seed, *chain_seeds = tf.unstack(split(seed, 1 + chains))
        share, *numbers = tf.unstack(uniforms(weight_seed, 1 + chains))
        # Not 0, which a single chain would be divided by.
        exponentials = tf.maximum(-tf.math.log1p(-tf.stack(numbers)), 1e-12)
        weights = exponentials / tf.reduce_sum(exponentials)
        rounded = tf.cast(image * 255.0 + 0.5, tf.uint8)

        # A loop for the sake of a small graph.
        def add_chain(number: tf.Tensor, mixture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            result = chain(rounded, tf.stack(chain_seeds)[number])
            return number + 1, mixture + weights[number] * tf.cast(result, tf.float32) / 255.0

        _, mixture = tf.while_loop(
            lambda number, _: number < chains,
            add_chain,
            (tf.constant(0), tf.zeros_like(image)),
            parallel_iterations=1,
        )
        return (1.0 - share) * image + share * mixture

    def chain(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draw_seed, apply_seed = tf.unstack(split(seed, 2))
        draws = uniforms(draw_seed, 1 + 2 * _LONGEST)
        length = 1 + tf.cast(draws[0] * _LONGEST, tf.int32)
        which = tf.cast(draws[1 : 1 + _LONGEST] * len(_NAMES), tf.int32)
        levels = 0.1 + (severity - 0.1) * draws[1 + _LONGEST :]
        drawn = tf.gather(operations, which)
        return apply_in_turn(
            image,
            tf.where(tf.range(_LONGEST) < length, drawn, OPERATIONS.index("Identity")),
            _at_level(tf.gather(full, which), drawn, levels),
            split(apply_seed, _LONGEST),
        )

    return on_images(image, seed, mixed)


def _at_level(full: tf.Tensor, operation: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    part = full * level / 10.0
    posterized = 4.0 - tf.floor(0.4 * level)
    solarized = 256.0 - tf.floor(25.6 * level)
    part = tf.where(operation == OPERATIONS.index("Posterize"), posterized, part)
    return tf.where(operation == OPERATIONS.index("Solarize"), solarized, part)
