"""SimCLR's colour augmentation: jitter in random order, then grey.

Chen et al. 2020, "A Simple Framework for Contrastive Learning", arXiv 2002.05709, appendix A.
Images are float32 [N, H, W, 3] in [0, 1]. Private functions take planes [N, 3, P], P pixels per
channel, because TensorFlow is slow along an innermost axis of 3.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from supcon_tf.data.augment.batching import image_size
from supcon_tf.data.augment.dispatch import apply_where, dispatch
from supcon_tf.data.augment.rng import uniforms

Jitter = Literal["tensorflow", "torchvision"]

# Grey is 0.2989 R + 0.587 G + 0.114 B, as in tf.image and torchvision: _GREY @ [r, g, b].
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)
_GREY = np.tile(_LUMA, [3, 1])
# In YIQ a pixel is luma (Y) plus chroma (I, Q), and a change of hue rotates the chroma. As matrices
# on RGB: projection on luma, projection on chroma, and the chroma rotated by 90 degrees.
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_COMPONENTS = np.array(
    [
        np.linalg.inv(_TO_YIQ) @ component @ _TO_YIQ
        for component in (
            np.diag([1, 0, 0]),
            np.diag([0, 1, 1]),
            [[0, 0, 0], [0, 0, 1], [0, -1, 0]],
        )
    ],
    np.float32,
)


class JitterDraw(NamedTuple):
    """Random parameters of the colour jitter for N images.

    Attributes:
      order: int32 [N, 4], permutations of brightness (0), contrast (1), saturation (2), hue (3).
      brightness: float32 [N], added ("tensorflow") or a factor ("torchvision").
      contrast: float32 [N], a factor.
      saturation: float32 [N], a factor.
      hue: float32 [N], in turns of the colour wheel, -0.5 to 0.5.
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
    """Applies `color_jitter` with this probability and random parameters; seeds are int64 [N]."""
    if strength == 0:
        return images
    numbers = uniforms(seed, 9)
    draw = draw_jitter(numbers[:, :8], strength=strength, jitter=jitter)

    def jittered(part: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        part_draw = JitterDraw(*(tf.gather(values, indices) for values in draw))
        return color_jitter(part, part_draw, jitter=jitter)

    return apply_where(images, numbers[:, 8] < probability, jittered)


def random_grey(images: tf.Tensor, *, seed: tf.Tensor, probability: float = 0.2) -> tf.Tensor:
    """Makes images grey with this probability; seeds are int64 [N]."""
    return apply_where(
        images,
        uniforms(seed, 1)[:, 0] < probability,
        # [n, H, W, 3] -> [n*H*W, 3] -> [n, H, W, 3]
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
    grey_probability: float = 0.2,
) -> tf.Tensor:
    """Jitter and grey as one colour matrix per image, with the same random numbers.

    An approximation of `random_color_jitter` and `random_grey`: values are clipped to [0, 1] once
    instead of after each step, the hue rotates about the grey axis of YIQ instead of around HSV's
    hexagon, and saturation always blends with grey. The order of the steps then does not matter.
    All shapes are static.
    """
    numbers = uniforms(jitter_seed, 9)
    draw = draw_jitter(numbers[:, :8], strength=strength, jitter=jitter)
    jittered = numbers[:, 8] < (0.8 if strength else 0.0)
    unchanged = (0.0 if jitter == "tensorflow" else 1.0, 1.0, 1.0, 0.0)
    amounts = [tf.where(jittered, *each) for each in zip(draw[1:], unchanged, strict=True)]
    draw = JitterDraw(draw.order, *amounts)
    grey = uniforms(grey_seed, 1)[:, 0] < grey_probability

    height, width = image_size(images)
    # With static sizes, tf.data fuses this with the transposition at the end of the batched crop.
    pixels = tf.reshape(images, [-1, height * width, 3])
    means = tf.reduce_mean(tf.transpose(pixels, [0, 2, 1]), axis=2)
    matrix, offset = color_matrix(draw, means, jitter=jitter, grey=grey)
    mixed = tf.matmul(pixels, matrix, transpose_b=True)
    # Add along whole rows: TensorFlow is slow along an axis of 3.
    mixed = tf.reshape(mixed, [-1, height, 3 * width]) + tf.tile(offset, [1, width])[:, None]
    return tf.reshape(tf.clip_by_value(mixed, 0.0, 1.0), tf.shape(images))


def draw_jitter(numbers: tf.Tensor, *, strength: float, jitter: Jitter) -> JitterDraw:
    """Turns uniform numbers [N, 8] into jitter parameters: 4 amounts, and the order by rank.

    At strength s, factors are in [max(0, 1 - 0.8 s), 1 + 0.8 s], added brightness in
    [-0.8 s, 0.8 s] and hue in [-0.2 s, 0.2 s].
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
    """Changes brightness, contrast, saturation and hue; clips to [0, 1] after each.

    | step       | "tensorflow"                               | "torchvision"                     |
    |------------|--------------------------------------------|-----------------------------------|
    | brightness | x + b                                      | b x                               |
    | contrast   | c x + (1 - c) mean of the channel          | c x + (1 - c) mean of grey(x)     |
    | saturation | the S of HSV times s                       | s x + (1 - s) grey(x)             |
    | hue        | h added to the H of HSV, modulo one turn   | the same                          |
    """
    if jitter == "tensorflow":
        changes = (_add, _contrast_of_channels, _saturation_of_hsv, _turn_hue)
    else:
        changes = (_multiply, _contrast_of_grey, _blend_with_grey, _turn_hue)

    def step(change: Callable[..., tf.Tensor], amounts: tf.Tensor) -> Callable[..., tf.Tensor]:
        def changed(planes: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
            return change(planes, tf.gather(amounts, indices)[:, None, None])

        return changed

    steps = [step(*each) for each in zip(changes, draw[1:], strict=True)]
    # [N, H, W, 3] -> [N, 3, H*W]
    planes = tf.transpose(tf.reshape(images, [tf.shape(images)[0], -1, 3]), [0, 2, 1])
    planes = dispatch(planes, draw.order, steps)
    return tf.reshape(tf.transpose(planes, [0, 2, 1]), tf.shape(images))


def color_matrix(
    draw: JitterDraw,
    means: tf.Tensor,
    *,
    jitter: Jitter = "tensorflow",
    grey: bool | tf.Tensor = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The jitter as x -> M x + t, for images with these channel means.

    Each step scales luma or chroma, rotates chroma or adds grey. Without clipping their order does
    not matter, except for 1e-4 of the brightness that "tensorflow" adds, because the weights of
    grey sum to 0.9999.

    Args:
      draw: parameters of N images.
      means: float32 [N, 3].
      jitter: "tensorflow" or "torchvision" formulas.
      grey: bool [N] or [], which images become grey afterwards.

    Returns:
      M float32 [N, 3, 3] and t float32 [N, 3].
    """
    brightness, contrast, saturation = (values[:, None] for values in draw[1:4])
    turn = 2.0 * np.pi * draw.hue[:, None]
    white = float(_LUMA.sum())
    luma = (saturation + (1.0 - saturation) * white) * tf.where(grey, white, 1.0)[..., None]
    chroma = saturation * tf.where(grey, 0.0, 1.0)[..., None]
    shares = tf.concat([luma, chroma * tf.cos(turn), chroma * tf.sin(turn)], axis=1)
    if jitter == "torchvision":
        shares *= brightness
        means = tf.matmul(means, _GREY, transpose_b=True)
    matrix = tf.reshape(tf.matmul(shares, _COMPONENTS.reshape(3, 9)), [-1, 3, 3])
    offset = (1.0 - contrast) * tf.reduce_sum(matrix * means[:, None], axis=2)
    if jitter == "tensorflow":
        offset += brightness * tf.where(grey, white, 1.0)[..., None]
    return contrast[:, None] * matrix, offset


# The functions below take planes [n, 3, P] and an amount [n, 1, 1].


def _add(planes: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(planes + amount, 0.0, 1.0)


def _multiply(planes: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(planes * amount, 0.0, 1.0)


def _contrast_of_channels(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(
        factor * planes + (1.0 - factor) * tf.reduce_mean(planes, axis=2, keepdims=True), 0.0, 1.0
    )


def _contrast_of_grey(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    mean = _grey(tf.reduce_mean(planes, axis=2, keepdims=True))
    return tf.clip_by_value(factor * planes + (1.0 - factor) * mean, 0.0, 1.0)


def _blend_with_grey(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(factor * planes + (1.0 - factor) * _grey(planes), 0.0, 1.0)


def _grey(planes: tf.Tensor) -> tf.Tensor:
    red, green, blue = (weight * planes[:, c : c + 1] for c, weight in enumerate(_LUMA))
    return red + green + blue


def _saturation_of_hsv(planes: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    # In HSV a channel is x = V - V S k with k a function of the hue: S -> s S gives V - s (V - x).
    # S = (V - min) / V may not exceed 1.
    value, chroma = _value_and_chroma(planes)
    return value - tf.minimum(factor, value / tf.maximum(chroma, 1e-12)) * (value - planes)


def _turn_hue(planes: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Adds to the H of HSV: position on the hexagon's six sides, shifted, back to RGB."""
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
    return (value - chroma) + chroma * tf.clip_by_value(shares, 0.0, 1.0)


def _value_and_chroma(planes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # HSV's V = max and the chroma max - min, both [n, 1, P].
    value = tf.reduce_max(planes, axis=1, keepdims=True)
    return value, value - tf.reduce_min(planes, axis=1, keepdims=True)
