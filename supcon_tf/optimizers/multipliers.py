"""Learning rates that differ between the variables of a model."""

import re
from collections.abc import Mapping, Sequence

import keras

from supcon_tf.errors import UserError


def multiply_learning_rates(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    multipliers: Mapping[str, float],
) -> None:
    """Multiplies the learning rate of the variables that a pattern names, as in fine-tuning.

    The rate and not the gradient: LARS and Adam would divide a factor of the gradient out again,
    and with any optimizer an L2 weight decay is slowed as much as the rest, like the rate of a
    parameter group elsewhere. A saved optimizer does not keep the multipliers.

    Args:
      optimizer: built for `variables`; it is changed.
      variables: what it was built for.
      multipliers: regular expression, searched in `variable.path` -> factor >= 0. The first that
        is found counts; variables without one keep the whole rate.

    Raises:
      UserError: a negative factor, or a pattern that no variable has.

    Example:
      >>> import keras
      >>> from supcon_tf.optimizers import multiply_learning_rates
      >>> low, high = keras.Variable([1.0], name="low"), keras.Variable([1.0], name="high")
      >>> optimizer = keras.optimizers.SGD(0.5)
      >>> optimizer.build([low, high])
      >>> multiply_learning_rates(optimizer, [low, high], {"^low$": 0.5})
      >>> optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)])
      >>> low.numpy().tolist(), high.numpy().tolist()
      ([0.75], [0.5])
    """
    for pattern, factor in multipliers.items():
        if not factor >= 0:
            raise UserError(f"a learning rate multiplier must be >= 0, got {factor} of {pattern!r}")
        if not any(re.search(pattern, variable.path) for variable in variables):
            paths = [variable.path for variable in variables]
            raise UserError(f"no variable has {pattern!r}, known are {', '.join(paths[:12])}")
    factors = [
        next(
            (factor for name, factor in multipliers.items() if re.search(name, variable.path)), 1.0
        )
        for variable in variables
    ]
    update_step = optimizer.update_step

    def scaled(gradient, variable, learning_rate):
        # Bare tensors have no path, the optimizer knows their place.
        factor = factors[optimizer._get_variable_index(variable)]
        update_step(gradient, variable, learning_rate * factor)

    optimizer.update_step = scaled
