"""Layer-wise adaptive rate scaling, the optimizer of large-batch contrastive training."""

import re
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from supcon_tf.errors import UserError, check_flag, check_number

# Matches variables of batch, layer and group normalisation under any layer name.
NORMALIZATION_VARIABLES = r"/(gamma|beta)$"


@keras.saving.register_keras_serializable(package="supcon_tf")
class LARS(keras.optimizers.Optimizer):
    r"""Momentum SGD whose step for each variable is scaled by that variable's norm.

    You et al. 2017, arXiv 1708.03888, with the learning rate inside the momentum as in the released
    SupCon and SimCLR code:

        d = g + weight_decay w
        ratio = trust_coefficient ||w|| / ||d||, or 1 if either norm is 0
        v <- momentum v + learning_rate ratio d
        w <- w - v, or with `nesterov` w - (momentum v + learning_rate ratio d)

    Variables that match `exclude` have neither weight decay nor trust ratio: d = g, ratio = 1.

    Args:
      learning_rate: a float >= 0 or a `LearningRateSchedule`.
      momentum: decay of the velocity v, in [0, 1).
      weight_decay: L2 coefficient >= 0. It is part of the gradient, so it goes through the trust
        ratio and the momentum, unlike the `weight_decay` of Keras' optimizers.
      trust_coefficient: length of a step relative to ||w|| at learning rate 1, > 0.
      nesterov: use Nesterov momentum.
      exclude: regular expressions that are searched in `variable.path`.
      name: name of the optimizer.
      **kwargs: arguments of `keras.optimizers.Optimizer`, such as `clipnorm` or `use_ema`.

    Raises:
      UserError: for an option out of range or an invalid regular expression.

    Example:
      >>> import keras
      >>> from supcon_tf.optimizers import LARS
      >>> w = keras.Variable([3.0, 4.0], name="kernel")
      >>> LARS(1.0, trust_coefficient=0.1).apply([keras.ops.array([0.0, 2.0])], [w])
      >>> w.numpy().tolist()  # a step of length 0.1 ||w||, against the gradient
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
        if isinstance(learning_rate, int | float | str):
            check_number("learning_rate", learning_rate, at_least=0)
        check_number("momentum", momentum, at_least=0, below=1)
        check_number("weight_decay", weight_decay, at_least=0)
        check_number("trust_coefficient", trust_coefficient, above=0)
        check_flag("nesterov", nesterov)
        # The base class gets no weight_decay: it would apply it a second time.
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.nesterov = nesterov
        self.exclude = check_patterns("exclude", exclude)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Matched here, because `update_step` gets tensors, which have no path.
        self._is_adapted = [
            not any(re.search(pattern, variable.path) for pattern in self.exclude)
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        # At least float32: the 8 bits of bfloat16 are too few for the norm of a large variable.
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


def check_patterns(name: str, patterns: Iterable[str]) -> tuple[str, ...]:
    """Returns regular expressions as a tuple.

    Raises:
      UserError: if `patterns` is a single string, or a pattern is no regular expression.
    """
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise UserError(f"{name} must be a sequence of regular expressions, got {patterns!r}")
    patterns = tuple(patterns)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise UserError(
                f"{name} must be regular expressions, got {pattern!r}: {error}"
            ) from error
    return patterns
