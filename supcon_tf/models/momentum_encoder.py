"""A copy of layers whose weights are moving averages of the layers' weights."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from supcon_tf.errors import check_number


@keras.saving.register_keras_serializable(package="supcon_tf")
class MomentumProjection(keras.layers.Layer):
    """Runs layers one after the other with momentum copies of their weights, without a gradient.

    In training mode every call first updates the copies of the trainable weights,
    k <- k + (1 - momentum) (q - k), then runs the layers in training mode. Non-trainable variables
    (batch statistics, random seeds) are copied once and then updated by these calls alone.

    Maps the first layer's input to the last layer's output.

    Args:
      parts: built layers; their variables are copied, not changed.
      momentum: m, in [0, 1].
      **kwargs: arguments of a Keras layer.

    Raises:
      UserError: if `momentum` is outside [0, 1].
    """

    def __init__(self, parts: Sequence[keras.layers.Layer], *, momentum: float = 0.999, **kwargs):
        check_number("momentum", momentum, at_least=0, at_most=1)
        # Always float32: the 8 bits of bfloat16 lose an update of a thousandth of a weight.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.parts = list(parts)
        self.momentum = momentum

    def build(self, input_shape: Any) -> None:
        del input_shape
        self.part_weights = [self._copies(part.trainable_variables) for part in self.parts]
        self.part_states = [self._copies(part.non_trainable_variables) for part in self.parts]

    def sync(self) -> None:
        """Sets every copy to the current value of its variable, such as after loading weights."""
        for part, weights, states in self._parts_with_copies():
            variables = (*part.trainable_variables, *part.non_trainable_variables)
            for copy, variable in zip((*weights, *states), variables, strict=True):
                copy.assign(variable)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = inputs
        for part, weights, states in self._parts_with_copies():
            if training:
                for copy, weight in zip(weights, part.trainable_variables, strict=True):
                    copy.assign(copy + (1.0 - self.momentum) * (weight - copy))
            outputs, updated = part.stateless_call(
                weights, states, outputs, training=bool(training)
            )
            if training:
                for state, value in zip(states, updated, strict=True):
                    state.assign(value)
        return ops.stop_gradient(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        for part in self.parts:
            input_shape = part.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {**super().get_config(), "parts": parts, "momentum": self.momentum}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MomentumProjection":
        parts = [keras.saving.deserialize_keras_object(part) for part in config.pop("parts")]
        return cls(parts, **config)

    def _parts_with_copies(self) -> Any:
        return zip(self.parts, self.part_weights, self.part_states, strict=True)

    def _copies(self, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
        return [
            self.add_weight(
                shape=variable.shape,
                dtype=variable.dtype,
                initializer=_constant(ops.convert_to_numpy(variable)),
                trainable=False,
                # All replicas compute the same values.
                aggregation="only_first_replica",
                name=variable.path.replace("/", "_"),
            )
            for variable in variables
        ]


def _constant(value: Any) -> Any:
    def initializer(shape: Any, dtype: Any = None) -> tf.Tensor:
        del shape
        return tf.constant(value, dtype)

    return initializer
