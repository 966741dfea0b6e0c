"""The preprocessing of pretrained networks, as a layer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from supcon_tf.errors import UserError, check_flag, check_number


@keras.saving.register_keras_serializable(package="supcon_tf")
class InputScaling(layers.Layer):
    """Scales images from [-1, 1] to the range that a network was trained with.

    y = scale x + offset for each channel, in float32.

    Args:
      scale, offset: three numbers, for red, green and blue.
      bgr: reverse the channels at the end, for networks that take blue first.

    Raises:
      UserError: an option is of another kind.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.models.encoders import InputScaling
      >>> white = np.ones((1, 1, 1, 3), "float32")
      >>> InputScaling([127.5] * 3, [127.5] * 3)(white).numpy().ravel().tolist()
      [255.0, 255.0, 255.0]
    """

    def __init__(
        self, scale: Sequence[float], offset: Sequence[float], *, bgr: bool = False, **kwargs: Any
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        for option, value in (("scale", scale), ("offset", offset)):
            if not isinstance(value, list | tuple) or len(value) != 3:
                raise UserError(f"{option} must be three numbers, got {value!r}")
            for number in value:
                check_number(option, number)
        check_flag("bgr", bgr)
        self.scale, self.offset, self.bgr = [*map(float, scale)], [*map(float, offset)], bool(bgr)

    def call(self, images):
        scaled = images * np.float32(self.scale) + np.float32(self.offset)
        return ops.flip(scaled, axis=-1) if self.bgr else scaled

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"scale": self.scale, "offset": self.offset, "bgr": self.bgr}
        return {**super().get_config(), **own}


def from_mean_and_deviation(mean: Sequence[float], deviation: Sequence[float]) -> InputScaling:
    """(pixel - mean) / deviation, for constants on the scale [0, 1]."""
    middle, spread = np.array(mean), np.array(deviation)
    return InputScaling(
        (0.5 / spread).tolist(), ((0.5 - middle) / spread).tolist(), name="input_scaling"
    )


def from_bytes(scale: float = 1.0, mean: float = 0.0) -> InputScaling:
    """(pixel - mean) scale, for pixels in 0...255."""
    return InputScaling([127.5 * scale] * 3, [(127.5 - mean) * scale] * 3, name="input_scaling")
