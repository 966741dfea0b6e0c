"""Initial weights of layers: PyTorch's uniform distribution, and new draws for every layer."""

import math
from typing import Any, TypeAlias

import keras

from supcon_tf.errors import UserError, check_integer


@keras.saving.register_keras_serializable(package="supcon_tf")
class FanInUniform(keras.initializers.RandomUniform):
    """The uniform distribution on [-1, 1] / sqrt(fan_in): PyTorch's for linear layers.

    PyTorch draws kernels and biases from it. The fan-in is the number of inputs of one output. A
    kernel's shape has it; `projection_head` and `classification_head` know it for their biases.

    Args:
      fan_in: number of inputs; None for that of a kernel [..., inputs, outputs].
      seed: as in Keras' initializers.

    Raises:
      UserError: if `fan_in` is below 1, or is None for a vector.

    Example:
      >>> from supcon_tf import models
      >>> kernel = models.FanInUniform()((400, 10))
      >>> bool(abs(kernel.numpy()).max() <= 1 / 20)
      True
    """

    def __init__(self, fan_in: int | None = None, seed: Any = None):
        if fan_in is not None:
            fan_in = check_integer("fan_in", fan_in, at_least=1)
        super().__init__(seed=seed)
        self.fan_in = fan_in

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if self.fan_in is None and len(shape) < 2:
            raise UserError(f"fan_in must be an integer for a vector {tuple(shape)}, got None")
        limit = 1 / math.sqrt(self.fan_in or math.prod(shape[:-1]))
        return keras.random.uniform(shape, -limit, limit, dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        return {"fan_in": self.fan_in, "seed": super().get_config()["seed"]}


Initializer: TypeAlias = str | keras.initializers.Initializer


def new_initializer(
    option: str, value: Initializer, *, fan_in: int | None = None
) -> keras.initializers.Initializer:
    """An initializer for one layer.

    An initializer of Keras draws the same numbers at every call. Layers that share one would start
    with equal weights.

    Args:
      option: name of the option, for errors.
      value: a Keras initializer or its name.
      fan_in: number of inputs of the layer, for the bias of a `FanInUniform`.

    Raises:
      UserError: neither an initializer nor the name of one, or an initializer with a seed.
    """
    try:
        made = keras.initializers.get(value)
    except (TypeError, ValueError):
        made = None
    if not isinstance(made, keras.initializers.Initializer):
        raise UserError(
            f'{option} must be a Keras initializer or its name, such as "he_normal", got {value!r}'
        )
    config = made.get_config()
    if config.get("seed") is not None:
        raise UserError(
            f"{option} must have no seed, as layers of one shape would start with equal weights, "
            f"got {config['seed']!r}: set pretrain.run.seed, or call keras.utils.set_random_seed"
        )
    if isinstance(made, FanInUniform) and fan_in is not None:
        return FanInUniform(made.fan_in or fan_in)
    return made if isinstance(value, str) else made.clone()
