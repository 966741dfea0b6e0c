"""The 16 operations of AutoAugment and RandAugment, their levels, and the choice of one of them.

Cubuk et al. 2019, "AutoAugment", arXiv 1805.09501; Cubuk et al. 2020, "RandAugment", arXiv
1909.13719; the meaning of a level follows the code released with the latter.
"""

from typing import NamedTuple

import tensorflow as tf

from supcon_tf.data.augment import geometry, tones
from supcon_tf.data.augment.draws import split, uniforms

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "Identity",
)
_REFERENCE_SIDE = 224.0


class Ranges(NamedTuple):
    """What level 10 stands for where the policies differ.

    Attributes:
      translate: pixels at 224 px; on an image of another side t, t * side / 224 (the width for
        TranslateX, the height for TranslateY).
      cutout: half the side of the hole in pixels at 224 px, scaled by the shorter side likewise.
      posterize: bits kept at level 0; level 10 keeps 4 more.
    """

    translate: float
    cutout: float = 0.0
    posterize: int = 0


def parameter(operation: str, level: float, ranges: Ranges) -> float:
    """What an operation takes at a level of 0 to 10, before its sign is drawn.

    Degrees for Rotate, a factor for the shears and the blends, pixels at 224 px for the
    translations and Cutout, bits, a threshold or an addition for the rest; 0 where it takes none.
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
    image: tf.Tensor, *, operations: tf.Tensor, parameters: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Applies one operation after the other.

    Args:
      image: uint8 [H, W, 3].
      operations: int32 [K], indices in OPERATIONS.
      parameters: float32 [K], from `parameter`.
      seed: int64 [].

    Returns:
      uint8 [H, W, 3].
    """
    seeds = split(seed, operations.shape[0])

    # A loop, as K times 17 branches would take TensorFlow seconds to prepare.
    def step(number: tf.Tensor, result: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = apply(
            result,
            operation=operations[number],
            parameter=parameters[number],
            seed=seeds[number],
        )
        return number + 1, result

    _, result = tf.while_loop(
        lambda number, _: number < operations.shape[0],
        step,
        (tf.constant(0), image),
        parallel_iterations=1,
        maximum_iterations=operations.shape[0],
    )
    return result


# Converting 17 branches that need no conversion would take AutoGraph longer than tracing them.
@tf.autograph.experimental.do_not_convert
def apply(
    image: tf.Tensor, *, operation: tf.Tensor, parameter: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Applies the operation of this index in OPERATIONS; only that one runs.

    Args:
      image: uint8 [H, W, 3].
      operation: int32 [].
      parameter: float32 [], from `parameter`; Rotate, the shears and the translations negate it
        for every other seed.
      seed: int64 [].

    Returns:
      uint8 [H, W, 3].
    """

    def signed() -> tf.Tensor:
        return tf.where(uniforms(seed, 1)[0] < 0.5, -parameter, parameter)

    # Sizes are taken within the branches: what stands outside runs for every operation.
    def side(axis: int) -> tf.Tensor:
        return tf.cast(tf.shape(image)[axis], tf.float32) / _REFERENCE_SIDE

    def cutout() -> tf.Tensor:
        half_side = tf.round(parameter * tf.minimum(side(0), side(1)))
        return geometry.cutout(image, half_side=tf.cast(half_side, tf.int32), seed=seed)

    result = tf.switch_case(
        operation,
        [
            lambda: tones.autocontrast(image),
            lambda: tones.equalize(image),
            lambda: tones.invert(image),
            lambda: geometry.rotate(image, degrees=signed()),
            lambda: tones.posterize(image, bits=parameter),
            lambda: tones.solarize(image, threshold=parameter),
            lambda: tones.solarize_add(image, addition=parameter),
            lambda: tones.color(image, factor=parameter),
            lambda: tones.contrast(image, factor=parameter),
            lambda: tones.brightness(image, factor=parameter),
            lambda: tones.sharpness(image, factor=parameter),
            lambda: geometry.shear_x(image, factor=signed()),
            lambda: geometry.shear_y(image, factor=signed()),
            lambda: geometry.translate_x(image, pixels=signed() * side(1)),
            lambda: geometry.translate_y(image, pixels=signed() * side(0)),
            cutout,
            lambda: image,
        ],
    )
    result.set_shape(image.shape)
    return result
