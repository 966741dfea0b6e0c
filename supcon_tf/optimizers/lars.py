"""Layer-wise adaptive rate scaling, the optimizer of large-batch contrastive training."""

import re
from collections.abc import Sequence

import keras
from keras import ops

from supcon_tf.errors import UserError

# Batch (and layer, and group) normalisation, whatever the layer is called.
NORMALIZATION_VARIABLES = r"/(gamma|beta)$"


@keras.saving.register_keras_serializable(package="supcon_tf")
class LARS(keras.optimizers.Optimizer):
    r"""SGD with momentum whose step is scaled per variable by its norm.

    You et al. 2017 (arXiv 1708.03888), with the learning rate inside the momentum as in the
    released SupCon and SimCLR code:

        d = g + weight_decay w
        ratio = trust_coefficient ||w|| / ||d||, or 1 where either norm is 0
        v <- momentum v + learning_rate ratio d
        w <- w - v, or with `nesterov` w - (momentum v + learning_rate ratio d)

    Variables that `exclude` names have neither weight decay nor the ratio: d = g, ratio = 1.

    Args:
      learning_rate: a float or a `LearningRateSchedule`.
      momentum: share of the last update that is kept, in [0, 1).
      weight_decay: L2 coefficient; unlike that of Keras' own optimizers it is added to the
        gradient, so that it goes through the ratio and the momentum.
      trust_coefficient: length of a step relative to the variable's, for learning rate 1.
      nesterov: use Nesterov's momentum.
      exclude: regular expressions, searched in `variable.path`.
      name: of the optimizer.
      **kwargs: of `keras.optimizers.Optimizer`, such as `clipnorm` or `use_ema`.

    Raises:
      UserError: for a momentum, weight decay or trust coefficient out of range.

    Example:
      >>> import keras
      >>> from supcon_tf.optimizers import LARS
      >>> w = keras.Variable([3.0, 4.0], name="kernel")
      >>> LARS(1.0, trust_coefficient=0.1).apply([keras.ops.array([0.0, 2.0])], [w])
      >>> w.numpy().tolist()  # a step of length 0.1 ||w|| against the gradient
      [3.0, 3.5]
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        nesterov: bool = False,
        exclude: Sequence[str] = (NORMALIZATION_VARIABLES,),
        name: str = "lars",
        **kwargs,
    ):
        # `weight_decay` stays None in the base class, which would apply it a second time.
        super().__init__(learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0:
            raise UserError(f"weight_decay must be >= 0, got {weight_decay}")
        if trust_coefficient <= 0:
            raise UserError(f"trust_coefficient must be > 0, got {trust_coefficient}")
        if isinstance(exclude, str):
            raise UserError(f"exclude must be a sequence of patterns, got the string {exclude!r}")
        self.momentum = momentum
        self.l2_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.nesterov = nesterov
        self.exclude = tuple(exclude)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Decided here, because `update_step` gets bare tensors that have no path.
        self._is_adapted = [
            not any(re.search(pattern, variable.path) for pattern in self.exclude)
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        # The norm of a large variable does not fit into the 8 bits of a bfloat16.
        dtype = keras.backend.result_type(variable.dtype, "float32")
        weights, direction = ops.cast(variable, dtype), ops.cast(gradient, dtype)
        step_size = ops.cast(learning_rate, dtype)
        if self._is_adapted[index]:
            direction = direction + self.l2_weight_decay * weights
            step_size = step_size * self._trust_ratio(weights, direction)

        step = step_size * direction
        new_velocity = self.momentum * ops.cast(velocity, dtype) + step
        self.assign(velocity, new_velocity)
        update = self.momentum * new_velocity + step if self.nesterov else new_velocity
        self.assign(variable, weights - update)

    def _trust_ratio(self, weights, direction):
        weight_norm = ops.sqrt(ops.sum(ops.square(weights)))
        direction_norm = ops.sqrt(ops.sum(ops.square(direction)))
        both_positive = ops.logical_and(weight_norm > 0, direction_norm > 0)
        ratio = self.trust_coefficient * weight_norm / direction_norm
        return ops.where(both_positive, ratio, 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.l2_weight_decay,
            "trust_coefficient": self.trust_coefficient,
            "nesterov": self.nesterov,
            "exclude": self.exclude,
        }
