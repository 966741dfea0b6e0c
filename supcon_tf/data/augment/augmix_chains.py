"""AugMix: an image blended with randomly augmented copies of itself."""

import tensorflow as tf

from supcon_tf.data.augment.batching import apply_per_image
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, apply_in_turn, parameter
from supcon_tf.data.augment.rng import split, uniforms
from supcon_tf.errors import check_integer, check_number

# Translations of up to a third of the side. Operations that ImageNet-C also uses are left out.
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
_MAX_LENGTH = 3


def augmix(
    image: tf.Tensor, *, seed: int | tf.Tensor, severity: float = 3.0, chains: int = 3
) -> tf.Tensor:
    """AugMix: (1 - m) image + m sum_k w_k chain_k(image).

    Hendrycks et al. 2020, "AugMix: A Simple Data Processing Method to Improve Robustness and
    Uncertainty", arXiv 1912.02781, without its consistency loss. Each chain applies one to three
    of nine operations, each at a level uniform in [0.1, severity] out of 10. The weights w are
    Dirichlet(1, ..., 1) and m is Beta(1, 1). The authors' code rounds angles to whole degrees and
    translations to whole pixels; this one does not.

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped. Operations work on it rounded to
        uint8.
      seed: int64 [...]; the same seed gives the same image.
      severity: highest level, 0.1 to 10.
      chains: number of chains, >= 1.

    Returns:
      float32 [..., H, W, 3] in [0, 1].

    Raises:
      UserError: severity or chains is out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.augmix(image, seed=[1, 2, 3, 4]).shape
      TensorShape([4, 32, 32, 3])
    """
    check_number("severity", severity, at_least=0.1, at_most=10)
    check_integer("chains", chains, at_least=1)
    operations = tf.constant([OPERATIONS.index(name) for name in _NAMES])
    full = tf.constant([parameter(name, 10, _RANGES) for name in _NAMES])

    def mixed(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        weight_seed, *chain_seeds = tf.unstack(split(seed, 1 + chains))
        share, *numbers = tf.unstack(uniforms(weight_seed, 1 + chains))
        # Positive, so that a single chain's weight is not 0 / 0.
        exponentials = tf.maximum(-tf.math.log1p(-tf.stack(numbers)), 1e-12)
        weights = exponentials / tf.reduce_sum(exponentials)
        rounded = tf.cast(image * 255.0 + 0.5, tf.uint8)

        # tf.while_loop keeps the graph small.
        def add_chain(index: tf.Tensor, mixture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            result = chain(rounded, tf.stack(chain_seeds)[index])
            return index + 1, mixture + weights[index] * tf.cast(result, tf.float32) / 255.0

        _, mixture = tf.while_loop(
            lambda index, _: index < chains,
            add_chain,
            (tf.constant(0), tf.zeros_like(image)),
            parallel_iterations=1,
        )
        return (1.0 - share) * image + share * mixture

    def chain(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draw_seed, apply_seed = tf.unstack(split(seed, 2))
        numbers = uniforms(draw_seed, 1 + 2 * _MAX_LENGTH)
        length = 1 + tf.cast(numbers[0] * _MAX_LENGTH, tf.int32)
        which = tf.cast(numbers[1 : 1 + _MAX_LENGTH] * len(_NAMES), tf.int32)
        levels = 0.1 + (severity - 0.1) * numbers[1 + _MAX_LENGTH :]
        drawn = tf.gather(operations, which)
        return apply_in_turn(
            image,
            tf.where(tf.range(_MAX_LENGTH) < length, drawn, OPERATIONS.index("Identity")),
            _at_level(tf.gather(full, which), drawn, levels),
            split(apply_seed, _MAX_LENGTH),
        )

    return apply_per_image(image, seed, mixed)


def _at_level(full: tf.Tensor, operation: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Parameters at this level, from those at level 10.

    All are proportional to the level, except that Posterize and Solarize take integers which fall
    as the level rises.
    """
    part = full * level / 10.0
    posterized = 4.0 - tf.floor(0.4 * level)
    solarized = 256.0 - tf.floor(25.6 * level)
    part = tf.where(operation == OPERATIONS.index("Posterize"), posterized, part)
    return tf.where(operation == OPERATIONS.index("Solarize"), solarized, part)
