"""Augmentations: image in [0, 1] and seed -> image, alone or in a batch with one seed per image.

An image's result depends on its seed only, not on the rest of the batch.
"""

from collections.abc import Callable
from typing import get_args

import tensorflow as tf

from supcon_tf.data.augment import policies
from supcon_tf.data.augment.batching import apply_batched
from supcon_tf.data.augment.blur import random_blur
from supcon_tf.data.augment.color import (
    Jitter,
    random_color_jitter,
    random_color_matrix,
    random_grey,
)
from supcon_tf.data.augment.dispatch import apply_where, map_images
from supcon_tf.data.augment.operations import OPERATIONS, Ranges, apply_in_turn, parameter
from supcon_tf.data.augment.policies import PolicyName
from supcon_tf.data.augment.rng import split, uniforms
from supcon_tf.data.augment.warp import random_warp
from supcon_tf.errors import UserError, check_choice, check_flag, check_integer, check_number

_RANDAUGMENT_RANGES = Ranges(translate=100.0, cutout=40.0)


def identity(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """No augmentation: returns the image.

    Args:
      image: of any dtype and shape.
      seed: not used.

    Returns:
      The image.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> float(augment.identity(tf.constant(0.5), seed=1))
      0.5
    """
    del seed
    return image


def simclr(
    image: tf.Tensor,
    *,
    seed: tf.Tensor,
    strength: float = 1.0,
    jitter: Jitter = "tensorflow",
    blur_probability: float = 0.5,
    warp_probability: float = 0.0,
    grey_probability: float = 0.2,
    solarize_probability: float = 0.0,
    equalize_probability: float = 0.0,
    exact: bool = True,
    static_shapes: bool = False,
) -> tf.Tensor:
    """SimCLR's augmentation after the crop: colour jitter, grey, warp, blur; others as options.

    Chen et al. 2020, arXiv 2002.05709, appendix A: brightness, contrast, saturation and hue change
    in random order with probability 0.8, and the image becomes grey with probability 0.2. The warp
    is an option of the released SupCon code. That code rounds to uint8 after the crop, the jitter
    and grey, and at magnitude 0 skips grey, warp and blur too; this function does neither.
    Solarize and Equalize, after grey, are those of SuNCEt's released code for CIFAR-10; they work
    on the image rounded to uint8.

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped.
      seed: int64 [...]; the same seed gives the same image.
      strength: of the jitter, 0 (none) to 2.5: brightness, contrast and saturation change by up
        to 0.8 * strength, the hue by up to 0.2 * strength turns.
      jitter: formulas, "tensorflow" (brightness is added, contrast per channel, saturation in
        HSV) or "torchvision" (brightness is a factor, contrast about the mean grey, saturation
        blends with grey).
      blur_probability: of a Gaussian blur with sigma uniform in [0.1, 2] pixels.
      warp_probability: of a smooth warp.
      grey_probability: of a grey image.
      solarize_probability: of inverting the values above a threshold uniform in [0, 256).
      equalize_probability: of equalising the histogram of each channel.
      exact: False computes jitter and grey as one colour matrix per image, an approximation
        described at `color.random_color_matrix`.
      static_shapes: compute every step for every image, for XLA. Requires exact = False and no
        warp, Solarize or Equalize.

    Returns:
      float32 [..., H, W, 3] in [0, 1].

    Raises:
      UserError: an option is out of range, or static_shapes is combined with what it excludes.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.simclr(image, seed=[1, 2, 3, 4], strength=0.5).shape
      TensorShape([4, 32, 32, 3])
    """
    check_flag("exact", exact)
    check_flag("static_shapes", static_shapes)
    _check_simclr(strength, jitter, blur_probability, warp_probability)
    check_number("grey_probability", grey_probability, at_least=0, at_most=1)
    check_number("solarize_probability", solarize_probability, at_least=0, at_most=1)
    check_number("equalize_probability", equalize_probability, at_least=0, at_most=1)
    has_tones = bool(solarize_probability or equalize_probability)
    if static_shapes and (exact or warp_probability or has_tones):
        raise UserError(
            "static_shapes needs exact = False and warp_probability, solarize_probability and "
            f"equalize_probability = 0, got exact = {exact}, {warp_probability}, "
            f"{solarize_probability} and {equalize_probability}"
        )

    def augmented(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        color_seed, grey_seed, warp_seed, blur_seed, tone_seed = tf.unstack(split(seeds, 5), axis=1)
        if exact:
            images = random_color_jitter(images, seed=color_seed, strength=strength, jitter=jitter)
            images = random_grey(images, seed=grey_seed, probability=grey_probability)
        else:
            images = random_color_matrix(
                images,
                jitter_seed=color_seed,
                grey_seed=grey_seed,
                strength=strength,
                jitter=jitter,
                grey_probability=grey_probability,
            )
        if has_tones:
            images = _random_tones(images, tone_seed, solarize_probability, equalize_probability)
        images = random_warp(images, seed=warp_seed, probability=warp_probability)
        return random_blur(
            images, seed=blur_seed, probability=blur_probability, static_shapes=static_shapes
        )

    return apply_batched(image, seed, augmented)


def autoaugment(image: tf.Tensor, *, seed: tf.Tensor, policy: PolicyName = "released") -> tf.Tensor:
    """AutoAugment: one random pair of steps out of 25, each step with its own probability.

    Cubuk et al. 2019, arXiv 1805.09501. Levels are 0 to 10, as in the authors' TensorFlow code.
    With m = level / 10: 30 m degrees, shear 0.3 m, blend factor 0.1 + 1.8 m, threshold 256 m.
    "released" translates by 250 m pixels at 224 px and keeps 4 m bits. "imagenet", "cifar10" and
    "svhn" have the ranges of the paper's appendix: 150 m / 331 of the side and 4 + 4 m bits.
    (torchvision reads the same numbers as bins: m = number / 9, factors 1 +- 0.9 m, 8 - 4 m bits,
    threshold 255 (1 - m).)

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped. Steps work on it rounded to uint8.
      seed: int64 [...]; the same seed gives the same image.
      policy: "released" (the ImageNet policy of the SupCon code), or the paper's table "imagenet",
        "cifar10" or "svhn".

    Returns:
      float32 [..., H, W, 3] in [0, 1], multiples of 1/255.

    Raises:
      UserError: unknown policy.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.autoaugment(image, seed=[1, 2, 3, 4], policy="cifar10").shape
      TensorShape([4, 32, 32, 3])
    """
    check_choice("policy", policy, get_args(PolicyName))
    table, ranges = policies.TABLES[policy]
    operations = [[OPERATIONS.index(name) for name, _, _ in pair] for pair in table]
    parameters = [[parameter(name, level, ranges) for name, _, level in pair] for pair in table]
    probabilities = [[probability for _, probability, _ in pair] for pair in table]

    def sample(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = uniforms(seeds, 3)
        pair = tf.cast(numbers[:, 0] * len(table), tf.int32)
        applied = numbers[:, 1:] < tf.gather(probabilities, pair)
        which = tf.where(applied, tf.gather(operations, pair), OPERATIONS.index("Identity"))
        return which, tf.gather(parameters, pair)

    return _apply_sampled(image, seed, sample)


def randaugment(
    image: tf.Tensor, *, seed: tf.Tensor, layers: int = 2, magnitude: float = 10
) -> tf.Tensor:
    """RandAugment: `layers` random steps, each one of 16 operations or none, equally likely.

    Cubuk et al. 2020, arXiv 1909.13719, with the operations and magnitudes of the released code.

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped. Operations work on it rounded to
        uint8.
      seed: int64 [...]; the same seed gives the same image.
      layers: number of steps, >= 0.
      magnitude: level of every operation, 0 to 10.

    Returns:
      float32 [..., H, W, 3] in [0, 1], multiples of 1/255.

    Raises:
      UserError: layers or magnitude is out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.randaugment(image, seed=[1, 2, 3, 4], layers=1, magnitude=5).shape
      TensorShape([4, 32, 32, 3])
    """
    check_integer("layers", layers, at_least=0)
    check_number("magnitude", magnitude, at_least=0, at_most=10)
    parameters = [parameter(name, magnitude, _RANDAUGMENT_RANGES) for name in OPERATIONS]

    def sample(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        which = tf.cast(uniforms(seeds, layers) * len(OPERATIONS), tf.int32)
        return which, tf.gather(parameters, which)

    return _apply_sampled(image, seed, sample)


def stacked_randaugment(
    image: tf.Tensor,
    *,
    seed: tf.Tensor,
    strength: float = 1.0,
    jitter: Jitter = "tensorflow",
    layers: int = 2,
    magnitude: float = 10,
    blur_probability: float = 0.5,
    warp_probability: float = 0.0,
) -> tf.Tensor:
    """Stacked RandAugment: SimCLR's colour jitter, RandAugment, then SimCLR's grey, warp, blur.

    Tian et al. 2020, "What Makes for Good Views for Contrastive Learning?", arXiv 2005.10243. The
    order follows the released SupCon code.

    Args:
      image: float32 [..., H, W, 3] in [0, 1], already cropped.
      seed: int64 [...]; the same seed gives the same image.
      strength, jitter, blur_probability, warp_probability: as in `simclr`.
      layers, magnitude: as in `randaugment`.

    Returns:
      float32 [..., H, W, 3] in [0, 1].

    Raises:
      UserError: an option is out of range.

    Example:
      >>> import tensorflow as tf
      >>> from supcon_tf.data import augment
      >>> image = tf.random.stateless_uniform([4, 32, 32, 3], [0, 0])
      >>> augment.stacked_randaugment(image, seed=[1, 2, 3, 4]).shape
      TensorShape([4, 32, 32, 3])
    """
    _check_simclr(strength, jitter, blur_probability, warp_probability)

    def augmented(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        color, layered, grey, warp, blur = tf.unstack(split(seeds, 5), axis=1)
        images = random_color_jitter(images, seed=color, strength=strength, jitter=jitter)
        images = randaugment(images, seed=layered, layers=layers, magnitude=magnitude)
        images = random_grey(images, seed=grey)
        images = random_warp(images, seed=warp, probability=warp_probability)
        return random_blur(images, seed=blur, probability=blur_probability)

    return apply_batched(image, seed, augmented)


def _random_tones(
    images: tf.Tensor, seeds: tf.Tensor, solarize_probability: float, equalize_probability: float
) -> tf.Tensor:
    """Solarizes and then equalizes images [N, H, W, 3], each with its probability; seeds are [N].

    Images that neither applies to are not rounded.
    """
    numbers = uniforms(seeds, 3)
    is_applied = numbers[:, :2] < [[solarize_probability, equalize_probability]]
    names = ("Solarize", "Equalize")
    operations = tf.where(
        is_applied, [[OPERATIONS.index(name) for name in names]], OPERATIONS.index("Identity")
    )
    thresholds = tf.tile(256.0 * numbers[:, 2:], [1, 2])  # Equalize takes none.

    def applied(part: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        sampled = tf.gather(operations, rows), tf.gather(thresholds, rows)
        return _apply_sampled(part, tf.gather(seeds, rows), lambda _: sampled)

    return apply_where(images, tf.reduce_any(is_applied, axis=1), applied)


def _apply_sampled(
    image: tf.Tensor,
    seed: tf.Tensor,
    sample: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> tf.Tensor:
    """Applies sampled operations to images rounded to uint8.

    `sample` maps seeds [N] to indices in OPERATIONS, int32 [N, K], and parameters, float32 [N, K].
    """

    def augmented(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        sample_seeds, apply_seeds = tf.unstack(split(seeds, 2), axis=1)
        operations, parameters = sample(sample_seeds)
        rounded = tf.cast(images * 255.0 + 0.5, tf.uint8)
        step_seeds = split(apply_seeds, operations.shape[1])
        results = map_images(apply_in_turn, rounded, operations, parameters, step_seeds)
        return tf.cast(results, tf.float32) * (1.0 / 255.0)

    return apply_batched(image, seed, augmented)


def _check_simclr(
    strength: float, jitter: str, blur_probability: float, warp_probability: float
) -> None:
    # Above 2.5 the hue would turn by more than half the colour wheel.
    check_number("strength", strength, at_least=0, at_most=2.5)
    check_choice("jitter", jitter, get_args(Jitter))
    check_number("blur_probability", blur_probability, at_least=0, at_most=1)
    check_number("warp_probability", warp_probability, at_least=0, at_most=1)
