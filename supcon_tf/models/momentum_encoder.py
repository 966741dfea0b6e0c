"""Layers whose weights follow those of others with a momentum."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from supcon_tf.errors import UserError


@keras.saving.register_keras_serializable(package="supcon_tf")
class MomentumProjection(keras.layers.Layer):
    """Layers one after the other with weights that follow theirs: no gradient, moving averages.

    In training, k <- k + (1 - momentum) (q - k) for every trainable weight before the layers run,
    in training mode, and what they keep beside weights (batch statistics, seeds) moves for this
    copy alone.

    Args:
      parts: built layers, with whom this shares no weights.
      momentum: m, within [0, 1].
      kwargs: of a Keras layer.
    """

    def __init__(self, parts: Sequence[keras.layers.Layer], *, momentum: float = 0.999, **kwargs):
        if not 0 <= momentum <= 1:
            raise UserError(f"momentum must be within [0, 1], got {momentum}")
        # In float32 whatever the global policy: bfloat16 would lose a thousandth of a weight.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.parts = list(parts)
        self.momentum = momentum

    def build(self, input_shape: Any) -> None:
        del input_shape
        self.weights_of_parts = [self._copies(part.trainable_variables) for part in self.parts]
        self.states_of_parts = [self._copies(part.non_trainable_variables) for part in self.parts]

    def sync(self) -> None:
        """Gives the copies the weights that the parts have now, as after taking over others."""
        copies = zip(self.parts, self.weights_of_parts, self.states_of_parts, strict=True)
        for part, weights, states in copies:
            theirs = (*part.trainable_variables, *part.non_trainable_variables)
            for copy, value in zip((*weights, *states), theirs, strict=True):
                copy.assign(value)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = inputs
        copies = zip(self.parts, self.weights_of_parts, self.states_of_parts, strict=True)
        for part, weights, states in copies:
            if training:
                for weight, followed in zip(weights, part.trainable_variables, strict=True):
                    weight.assign(weight + (1.0 - self.momentum) * (followed - weight))
            outputs, moved = part.stateless_call(weights, states, outputs, training=bool(training))
            if training:
                for state, value in zip(states, moved, strict=True):
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
