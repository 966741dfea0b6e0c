"""The colour part of SimCLR's augmentation: jitter in random order, and grey.

Chen et al. 2020, "A Simple Framework for Contrastive Learning", arXiv 2002.05709, appendix A.
Images are float32 [H, W, 3] in [0, 1].
"""

from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

Jitter = Literal["tensorflow", "torchvision"]

# Grey is 0.2989 R + 0.587 G + 0.114 B, as in tf.image and in torchvision: [r, g, b] @ _GREY.
_GREY = np.repeat(np.array([[0.2989], [0.587], [0.114]], np.float32), 3, axis=1)


class JitterDraw(NamedTuple):
    """One draw of the colour jitter.

    Attributes:
      order: int32 [4], a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
      brightness: float32 [], added ("tensorflow") or a factor ("torchvision").
      contrast: float32 [], a factor.
      saturation: float32 [], a factor.
      hue: float32 [], turns of the colour wheel.
    """

    order: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def random_color_jitter(
    image: tf.Tensor,
    *,
    seed: tf.Tensor,
    strength: float = 1.0,
    jitter: Jitter = "tensorflow",
    probability: float = 0.8,
) -> tf.Tensor:
    """`color_jitter` with a random draw, with this probability."""
    if strength == 0:
        return image
    uniforms, coin = tf.split(tf.random.stateless_uniform([9], seed), [8, 1])
    draw = draw_jitter(uniforms, strength=strength, jitter=jitter)
    return tf.cond(
        coin[0] < probability, lambda: color_jitter(image, draw, jitter=jitter), lambda: image
    )


def draw_jitter(uniforms: tf.Tensor, *, strength: float, jitter: Jitter) -> JitterDraw:
    """Turns 8 uniform numbers of [0, 1) into a draw: 4 amounts and, by their ranks, the order.

    Factors are in [max(0, 1 - 0.8 s), 1 + 0.8 s], added brightness in [-0.8 s, 0.8 s] and hue in
    [-0.2 s, 0.2 s] at strength s.
    """
    factor = (max(0.0, 1.0 - 0.8 * strength), 1.0 + 0.8 * strength)
    added = (-0.8 * strength, 0.8 * strength)
    brightness = added if jitter == "tensorflow" else factor
    hue = (-0.2 * strength, 0.2 * strength)
    low, high = np.array([brightness, factor, factor, hue], np.float32).T
    position, ranks = tf.split(uniforms, 2)
    return JitterDraw(tf.argsort(ranks), *tf.unstack(low + (high - low) * position))


def color_jitter(image: tf.Tensor, draw: JitterDraw, *, jitter: Jitter = "tensorflow") -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, clipping to [0, 1] after each.

    | step       | "tensorflow"                               | "torchvision"                     |
    |------------|--------------------------------------------|-----------------------------------|
    | brightness | x + b                                      | b x                               |
    | contrast   | c x + (1 - c) mean of the channel          | c x + (1 - c) mean of the grey    |
    | saturation | the S of HSV times s                       | s x + (1 - s) grey                |
    | hue        | h added to the H of HSV, modulo one turn   | the same                          |
    """
    if jitter == "tensorflow":
        steps = (
            lambda x: x + draw.brightness,
            lambda x: tf.image.adjust_contrast(x, draw.contrast),
            lambda x: tf.image.adjust_saturation(x, draw.saturation),
            lambda x: tf.image.adjust_hue(x, draw.hue),
        )
    else:
        steps = (
            lambda x: x * draw.brightness,
            lambda x: draw.contrast * x + (1.0 - draw.contrast) * _mean_grey(x),
            lambda x: tf.tensordot(x, _saturation_matrix(draw.saturation), 1),
            lambda x: tf.image.adjust_hue(x, draw.hue),
        )
    for index in tf.unstack(draw.order):
        branches = [lambda step=step, image=image: step(image) for step in steps]
        image = tf.clip_by_value(tf.switch_case(index, branches), 0.0, 1.0)
    return image


def random_grey(image: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.2) -> tf.Tensor:
    """Makes all three channels grey with this probability."""
    coin = tf.random.stateless_uniform([], seed)
    return tf.cond(coin < probability, lambda: tf.tensordot(image, _GREY, 1), lambda: image)


def _mean_grey(image: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(tf.reduce_mean(image, [0, 1]), _GREY[:, 0], 1)


def _saturation_matrix(factor: tf.Tensor) -> tf.Tensor:
    # s x + (1 - s) grey as one 3x3 matrix: TensorFlow broadcasts an innermost axis of 3 slowly.
    return factor * np.eye(3, dtype=np.float32) + (1.0 - factor) * _GREY
