"""The colour part of SimCLR's augmentation: jitter in random order, and grey.

Chen et al. 2020, "A Simple Framework for Contrastive Learning", arXiv 2002.05709, appendix A.
Images are float32 [N, H, W, 3] in [0, 1]; within, [N, 3, P]: a plane of P pixels per channel, as
TensorFlow is slow along an innermost axis of 3.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.clipping import clip
from supcon_tf.data.augment.draws import uniforms
from supcon_tf.data.augment.groups import by_group, where_chosen

Jitter = Literal["tensorflow", "torchvision"]

# Grey is 0.2989 R + 0.587 G + 0.114 B, as in tf.image and in torchvision: _GREY @ [r, g, b].
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
_GREY = np.tile(_LUMA, [3, 1])
# The I and Q axes of YIQ: colour without luma, which a change of hue turns about the grey axis.
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_QUARTER_TURN = np.linalg.inv(_TO_YIQ) @ [[0, 0, 0], [0, 0, 1], [0, -1, 0]] @ _TO_YIQ
_COLOR_ONLY = np.linalg.inv(_TO_YIQ) @ np.diag([0, 1, 1]) @ _TO_YIQ


class JitterDraw(NamedTuple):
    """One draw of the colour jitter for each of N images.

    Attributes:
      order: int32 [N, 4], permutations of 0 brightness, 1 contrast, 2 saturation, 3 hue.
      brightness: float32 [N], added ("tensorflow") or a factor ("torchvision").
      contrast: float32 [N], a factor.
      saturation: float32 [N], a factor.
      hue: float32 [N], turns of the colour wheel, -0.5 to 0.5.
    """

    order: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def random_color_jitter(
    images: tf.Tensor,
    *,
    seed: tf.Tensor,
    strength: float = 1.0,
    jitter: Jitter = "tensorflow",
    probability: float = 0.8,
) -> tf.Tensor:
    """`color_jitter` with a random draw for each image and its seed [N], with this probability."""
    if strength == 0:
        return images
    numbers = uniforms(seed, 9)
    draw = draw_jitter(numbers[:, :8], strength=strength, jitter=jitter)

    def jittered(part: tf.Tensor, of_part: tf.Tensor) -> tf.Tensor:
        of_draw = JitterDraw(*(tf.gather(values, of_part) for values in draw))
        return color_jitter(part, of_draw, jitter=jitter)

    return where_chosen(images, numbers[:, 8] < probability, jittered)


def random_grey(images: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.2) -> tf.Tensor:
    """Makes all three channels of an image grey with this probability; seeds are [N]."""
    return where_chosen(
        images,
        uniforms(seed, 1)[:, 0] < probability,
        # [n, H, W, 3] -> [n, H, W, 3]: one product for all pixels.
        lambda part, _: tf.reshape(
            tf.matmul(tf.reshape(part, [-1, 3]), _GREY, transpose_b=True), tf.shape(part)
        ),
    )


def random_color_matrix(
    images: tf.Tensor,
    *,
    jitter_seed: tf.Tensor,
    grey_seed: tf.Tensor,
    strength: float = 1.0,
    jitter: Jitter = "tensorflow",
) -> tf.Tensor:
    """Jitter and grey with the draws of the two functions above, as one matrix for each image.

    An approximation: values are clipped to [0, 1] once instead of after each step, the hue turns
    about the grey axis of YIQ instead of around HSV's hexagon, and saturation is always the blend
    with grey. All shapes are static.
    """
    numbers = uniforms(jitter_seed, 9)
    draw = draw_jitter(numbers[:, :8], strength=strength, jitter=jitter)
    # As many pixels to a row as TensorFlow multiplies fastest, the matrix on the diagonal as often.
    height, width = images.shape[1:3]
    along = 4 if height and width and height * width % 4 == 0 else 1
    rows = tf.reshape(images, [tf.shape(images)[0], -1, 3 * along])  # [N, P / 4, 12]
    means = tf.reduce_mean(tf.reshape(tf.reduce_mean(rows, axis=1), [-1, along, 3]), axis=1)
    matrix, offset = color_matrix(draw, means, jitter=jitter)
    jittered = numbers[:, 8] < (0.8 if strength else 0.0)
    matrix = tf.where(jittered[:, None, None], matrix, np.eye(3, dtype=np.float32))
    offset = tf.where(jittered[:, None], offset, 0.0)
    grey = uniforms(grey_seed, 1)[:, 0] < 0.2
    matrix = tf.where(grey[:, None, None], tf.matmul(_GREY[None], matrix), matrix)
    offset = tf.where(grey[:, None], tf.linalg.matvec(_GREY, offset), offset)
    diagonal = tf.einsum("nij,ab->najbi", matrix, np.eye(along, dtype=np.float32))
    mixed = tf.matmul(rows, tf.reshape(diagonal, [-1, 3 * along, 3 * along]))
    mixed += tf.tile(offset, [1, along])[:, None]
    return tf.reshape(clip(mixed), tf.shape(images))


def draw_jitter(numbers: tf.Tensor, *, strength: float, jitter: Jitter) -> JitterDraw:
    """Turns 8 uniform numbers [N, 8] into a draw: 4 amounts and, by their ranks, the order.

    Factors are in [max(0, 1 - 0.8 s), 1 + 0.8 s], added brightness in [-0.8 s, 0.8 s] and hue in
    [-0.2 s, 0.2 s] at strength s.
    """
    factor = (max(0.0, 1.0 - 0.8 * strength), 1.0 + 0.8 * strength)
    added = (-0.8 * strength, 0.8 * strength)
    brightness = added if jitter == "tensorflow" else factor
    hue = (-0.2 * strength, 0.2 * strength)
    low, high = np.array([brightness, factor, factor, hue], np.float32).T
    amounts = low + (high - low) * numbers[:, :4]
    return JitterDraw(tf.argsort(numbers[:, 4:]), *tf.unstack(amounts, axis=1))


def color_jitter(
    images: tf.Tensor, draw: JitterDraw, *, jitter: Jitter = "tensorflow"
) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, clipping to [0, 1] after each.

    | step       | "tensorflow"                               | "torchvision"                     |
    |------------|--------------------------------------------|-----------------------------------|
    | brightness | x + b                                      | b x                               |
    | contrast   | c x + (1 - c) mean of the channel          | c x + (1 - c) mean of the grey    |
    | saturation | the S of HSV times s                       | s x + (1 - s) grey                |
    | hue        | h added to the H of HSV, modulo one turn   | the same                          |
    """
    if jitter == "tensorflow":
        changes = (_add, _contrast_of_channels, _saturation_of_hsv, _turn_hue)
    else:
        changes = (_multiply, _contrast_of_grey, _blend_with_grey, _turn_hue)

    def step(change: Callable[..., tf.Tensor], amounts: tf.Tensor) -> Callable[..., tf.Tensor]:
        def changed(planes: tf.Tensor, of_part: tf.Tensor) -> tf.Tensor:
            return change(planes, tf.gather(amounts, of_part)[:, None, None])

        return changed

    steps = [step(*each) for each in zip(changes, draw[1:], strict=True)]
    planes = _planes(images)
    planes = by_group(planes, draw.order, steps)
    return tf.reshape(tf.transpose(planes, [0, 2, 1]), tf.shape(images))


def color_matrix(
    draw: JitterDraw, means: tf.Tensor, *, jitter: Jitter = "tensorflow"
) -> tuple[tf.Tensor, tf.Tensor]:
    """The jitter as x -> M x + t, for images whose channels have these means.

    Args:
      draw: for N images.
      means: float32 [N, 3].
      jitter: the formulas.

    Returns:
      M [N, 3, 3] and t [N, 3].
    """
    one = np.eye(3, dtype=np.float32)
    brightness, contrast, saturation = (values[:, None, None] for values in draw[1:4])
    turn = 2.0 * np.pi * draw.hue[:, None, None]
    steps = tf.stack(
        [
            tf.ones_like(brightness) * one if jitter == "tensorflow" else brightness * one,
            contrast * one,
            saturation * one + (1.0 - saturation) * _GREY,
            one
            + (tf.cos(turn) - 1.0) * _COLOR_ONLY.astype(np.float32)
            + tf.sin(turn) * _QUARTER_TURN.astype(np.float32),
        ],
        axis=1,
    )
    matrix = tf.tile(one[None], [tf.shape(means)[0], 1, 1])
    offset = tf.zeros_like(means)
    for position in range(4):
        which = draw.order[:, position]
        step = tf.gather(steps, which, batch_dims=1)
        now = tf.linalg.matvec(matrix, means) + offset
        if jitter == "torchvision":
            now = tf.linalg.matvec(_GREY, now)
        added = tf.where((which == 1)[:, None], (1.0 - draw.contrast)[:, None] * now, 0.0)
        if jitter == "tensorflow":
            added += tf.where(which == 0, draw.brightness, 0.0)[:, None]
        matrix = tf.matmul(step, matrix)
        offset = tf.linalg.matvec(step, offset) + added
    return matrix, offset


def _planes(images: tf.Tensor) -> tf.Tensor:
    # [N, H, W, 3] -> [N, 3, H*W]
    pixels = tf.reshape(images, [tf.shape(images)[0], -1, 3])
    return tf.transpose(pixels, [0, 2, 1])


# What follows takes planes [n, 3, P] and an amount [n, 1, 1].


def _add(planes: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return clip(planes + amount)


def _multiply(planes: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return clip(planes * amount)


def _contrast_of_channels(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return clip(factor * planes + (1.0 - factor) * tf.reduce_mean(planes, axis=2, keepdims=True))


def _contrast_of_grey(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    mean = _grey(tf.reduce_mean(planes, axis=2, keepdims=True))
    return clip(factor * planes + (1.0 - factor) * mean)


def _blend_with_grey(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return clip(factor * planes + (1.0 - factor) * _grey(planes))


def _grey(planes: tf.Tensor) -> tf.Tensor:
    red, green, blue = (weight * planes[:, c : c + 1] for c, weight in enumerate(_LUMA))
    return red + green + blue


def _saturation_of_hsv(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    # In HSV a channel is V - V S k, where k depends on the hue alone: S times s is V - s (V - x),
    # as long as the new S is at most one, S = (V - lowest) / V.
    value, chroma = _value_and_chroma(planes)
    return value - tf.minimum(factor, value / tf.maximum(chroma, 1e-12)) * (value - planes)


def _turn_hue(planes: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Through the hexagon of HSV: where a pixel stands on its six sides, moved on, and back."""
    red, green, blue = tf.split(planes, 3, axis=1)
    value, chroma = _value_and_chroma(planes)
    inverse = 1.0 / tf.maximum(chroma, 1e-12)
    side = tf.where(
        red >= value,
        (green - blue) * inverse,
        tf.where(green >= value, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0),
    )
    side += 6.0 * turns
    side -= 6.0 * tf.floor(side * (1.0 / 6.0))
    shares = tf.concat(
        [tf.abs(side - 3.0) - 1.0, 2.0 - tf.abs(side - 2.0), 2.0 - tf.abs(side - 4.0)], axis=1
    )
    return (value - chroma) + chroma * clip(shares)


def _value_and_chroma(planes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # HSV's V, and V - the least channel, both [n, 1, P].
    value = tf.reduce_max(planes, axis=1, keepdims=True)
    return value, value - tf.reduce_min(planes, axis=1, keepdims=True)
