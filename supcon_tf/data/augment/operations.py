"""The 16 operations of AutoAugment and RandAugment, their levels, and selection by index.

Cubuk et al. 2019, "AutoAugment", arXiv 1805.09501; Cubuk et al. 2020, "RandAugment", arXiv
1909.13719. Levels mean what they mean in the code released with the latter.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from supcon_tf.data.augment import geometry, tones
from supcon_tf.data.augment.rng import uniforms

# image uint8 [H, W, 3], parameter float32 [], seed int64 [] -> uint8 [H, W, 3].
Operation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_REFERENCE_SIDE = 224.0


def _signed(parameter: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.where(uniforms(seed, 1)[0] < 0.5, -parameter, parameter)


def _side(image: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.cast(tf.shape(image)[axis], tf.float32) / _REFERENCE_SIDE


def _cutout(image: tf.Tensor, parameter: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    half_side = tf.round(parameter * tf.minimum(_side(image, 0), _side(image, 1)))
    return geometry.cutout(image, half_side=tf.cast(half_side, tf.int32), seed=seed)


_FUNCTIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, parameter, seed: tones.autocontrast(image),
    "Equalize": lambda image, parameter, seed: tones.equalize(image),
    "Invert": lambda image, parameter, seed: tones.invert(image),
    "Rotate": lambda image, parameter, seed: geometry.rotate(
        image, degrees=_signed(parameter, seed)
    ),
    "Posterize": lambda image, parameter, seed: tones.posterize(image, bits=parameter),
    "Solarize": lambda image, parameter, seed: tones.solarize(image, threshold=parameter),
    "SolarizeAdd": lambda image, parameter, seed: tones.solarize_add(image, addition=parameter),
    "Color": lambda image, parameter, seed: tones.color(image, factor=parameter),
    "Contrast": lambda image, parameter, seed: tones.contrast(image, factor=parameter),
    "Brightness": lambda image, parameter, seed: tones.brightness(image, factor=parameter),
    "Sharpness": lambda image, parameter, seed: tones.sharpness(image, factor=parameter),
    "ShearX": lambda image, parameter, seed: geometry.shear_x(
        image, factor=_signed(parameter, seed)
    ),
    "ShearY": lambda image, parameter, seed: geometry.shear_y(
        image, factor=_signed(parameter, seed)
    ),
    "TranslateX": lambda image, parameter, seed: geometry.translate_x(
        image, pixels=_signed(parameter, seed) * _side(image, 1)
    ),
    "TranslateY": lambda image, parameter, seed: geometry.translate_y(
        image, pixels=_signed(parameter, seed) * _side(image, 0)
    ),
    "Cutout": _cutout,
    "Identity": lambda image, parameter, seed: image,
}
OPERATIONS = tuple(_FUNCTIONS)
# Traced once for each image size and shared by all augmentations and pipelines.
_TRACED = [tf.function(function, autograph=False) for function in _FUNCTIONS.values()]


class Ranges(NamedTuple):
    """Parameters at level 10 that differ between policies.

    Attributes:
      translate: pixels on an image of 224 px; scales with the width (TranslateX) or the height
        (TranslateY).
      cutout: half the side of the hole, in pixels on an image of 224 px; scales with the shorter
        side.
      posterize: bits kept at level 0; level 10 keeps 4 more.
    """

    translate: float
    cutout: float = 0.0
    posterize: int = 0


def parameter(operation: str, level: float, ranges: Ranges) -> float:
    """The parameter of an operation at a level of 0 to 10, before its random sign.

    Degrees for Rotate, a factor for shears and blends, pixels on an image of 224 px for
    translations and Cutout, bits for Posterize, a threshold for Solarize, an addition for
    SolarizeAdd; 0 for operations without a parameter.
    """
    m = level / 10
    blend = 0.1 + 1.8 * m
    return {
        "Rotate": 30.0 * m,
        "ShearX": 0.3 * m,
        "ShearY": 0.3 * m,
        "TranslateX": ranges.translate * m,
        "TranslateY": ranges.translate * m,
        "Color": blend,
        "Contrast": blend,
        "Brightness": blend,
        "Sharpness": blend,
        "Posterize": ranges.posterize + int(4 * m),
        "Solarize": int(256 * m),
        "SolarizeAdd": int(110 * m),
        "Cutout": int(ranges.cutout * m),
    }.get(operation, 0.0)


def apply_in_turn(
    image: tf.Tensor, operations: tf.Tensor, parameters: tf.Tensor, seeds: tf.Tensor
) -> tf.Tensor:
    """Applies operations one after another.

    Args:
      image: uint8 [H, W, 3].
      operations: int32 [K], indices in OPERATIONS.
      parameters: float32 [K], from `parameter`.
      seeds: int64 [K].

    Returns:
      uint8 [H, W, 3].
    """
    steps = zip(*map(tf.unstack, (operations, parameters, seeds)), strict=True)
    for operation, value, seed in steps:
        image = apply(image, operation=operation, parameter=value, seed=seed)
    return image


def apply(
    image: tf.Tensor, *, operation: tf.Tensor, parameter: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Applies the operation with this index in OPERATIONS; only that one runs.

    Args:
      image: uint8 [H, W, 3].
      operation: int32 [].
      parameter: float32 [], from `parameter`; Rotate, shears and translations negate it with
        probability 1/2.
      seed: int64 [].

    Returns:
      uint8 [H, W, 3].
    """
    specs = [
        tf.TensorSpec(image.shape, tf.uint8),
        tf.TensorSpec([], tf.float32),
        tf.TensorSpec([], tf.int64),
    ]
    # tf.switch_case inlines all 17 branches; even nodes that do not run cost about as much time as
    # one operation.
    branches = [traced.get_concrete_function(*specs) for traced in _TRACED]
    # A branch runs on one device, and some of these operations have no uint8 kernel on a GPU.
    with tf.device("CPU:0"):
        [result] = tf.raw_ops.StatelessCase(
            branch_index=operation,
            input=[image, parameter, seed],
            Tout=[tf.uint8],
            branches=branches,
        )
    return tf.ensure_shape(result, image.shape)
