"""Learning-rate multipliers for some variables of a model."""

import re
from collections.abc import Mapping, Sequence

import keras

from supcon_tf.errors import UserError, check_number
from supcon_tf.optimizers.lars import check_patterns


def multiply_learning_rates(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    multipliers: Mapping[str, float],
    *,
    parts: Mapping[str, Sequence[keras.Variable]] | None = None,
) -> None:
    """Multiplies the learning rate of some variables, as in fine-tuning.

    Adam and LARS would normalise a scaled gradient, so the rate itself is multiplied. An L2 weight
    decay is multiplied with it, as in a parameter group of PyTorch. A saved optimizer does not keep
    the multipliers.

    Args:
      optimizer: built for `variables`; it is changed in place.
      variables: the variables that the optimizer was built for.
      multipliers: {name of a part, or regular expression that is searched in `variable.path`:
        factor >= 0}. The first match counts; variables without a match keep the full rate.
      parts: name of a part, such as "encoder" -> its variables, whatever their paths.

    Raises:
      UserError: for a negative factor, an invalid pattern, a pattern or part without a variable or
        whose variables all match an earlier one, an optimizer that wraps others, or one with Keras'
        decoupled weight decay, which does not follow the multipliers.

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
    _check_optimizer(optimizer)
    members = {name: {id(variable) for variable in part} for name, part in (parts or {}).items()}

    def matches(pattern: str, variable: keras.Variable) -> bool:
        if pattern in members:
            return id(variable) in members[pattern]
        return re.search(pattern, variable.path) is not None

    if not isinstance(multipliers, Mapping):
        raise UserError(
            "learning_rate_multipliers must be a dict from part or regular expression to number, "
            f'such as {{"encoder": 0.1}}, got {multipliers!r}'
        )
    for pattern in check_patterns("learning rate multipliers", multipliers):
        check_number(f"the multiplier of {pattern!r}", multipliers[pattern], at_least=0)
        if not any(matches(pattern, variable) for variable in variables):
            if pattern in members:
                raise UserError(
                    f"the multiplier of {pattern!r} has no effect, as nothing of it trains: leave "
                    "it out, or freeze less"
                )
            paths = [*(parts or ()), *(variable.path for variable in variables)]
            raise UserError(f"no variable matches {pattern!r}, known are {', '.join(paths[:12])}")
    deciding = [next((p for p in multipliers if matches(p, v)), None) for v in variables]
    if unused := [pattern for pattern in multipliers if pattern not in deciding]:
        raise UserError(
            f"the multiplier of {unused[0]!r} has no effect, as the first match counts and others "
            "come first: put it before them"
        )
    factors = [1.0 if pattern is None else multipliers[pattern] for pattern in deciding]
    update_step = optimizer.update_step

    def scaled(gradient, variable, learning_rate):
        # Tensors have no path, but the optimizer knows their index.
        factor = factors[optimizer._get_variable_index(variable)]
        update_step(gradient, variable, learning_rate * factor)

    optimizer.update_step = scaled


def _check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    if isinstance(optimizer, keras.optimizers.MultiOptimizer | keras.optimizers.LossScaleOptimizer):
        raise UserError(
            f"learning rate multipliers need the optimizer itself, got {optimizer.name}, which "
            "wraps others: apply them to the inner optimizer"
        )
    if getattr(optimizer, "weight_decay", None):
        raise UserError(
            f"weight_decay = {optimizer.weight_decay} of {optimizer.name} does not follow the "
            "learning rate multipliers: leave it out and use the stage's weight_decay"
        )
