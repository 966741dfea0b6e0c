"""L2 weight decay of some parts of a model, for any optimizer."""

import re
from collections.abc import Iterable

import keras

from supcon_tf.errors import UserError, check_number
from supcon_tf.optimizers.lars import LARS, NORMALIZATION_VARIABLES


def apply_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    weight_decay: float,
    *,
    decayed: Iterable[keras.Variable],
    others: Iterable[keras.Variable] = (),
) -> None:
    """Applies L2 weight decay to some variables of a model, never to normalisation layers.

    Biases decay too. The gradient of each decayed variable gains weight_decay w. LARS adds this
    term itself, and applies neither decay nor trust ratio to `others`. For any other optimizer the
    loss gains weight_decay ||w||^2 / 2 through regularizers of the variables, which Keras adds to
    the loss of `fit` and `evaluate`; a saved model does not keep them.

    Args:
      optimizer: a LARS is changed in place and must not be built yet; others are not changed.
      weight_decay: L2 coefficient >= 0.
      decayed: variables to decay; their earlier regularizers are replaced.
      others: the model's other variables; their earlier regularizers are removed.

    Raises:
      UserError: if `weight_decay` is negative; for a LARS that is built, has a weight decay
        already, or cannot distinguish `decayed` and `others` by path.

    Example:
      >>> import keras
      >>> from supcon_tf.optimizers import apply_weight_decay
      >>> dense = keras.layers.Dense(1, kernel_initializer="ones")
      >>> model = keras.Sequential([keras.Input((4,)), dense])
      >>> apply_weight_decay(keras.optimizers.SGD(), 0.5, decayed=model.trainable_variables)
      >>> float(sum(model.losses))  # 0.5 (1 + 1 + 1 + 1) / 2
      1.0
    """
    check_number("weight_decay", weight_decay, at_least=0)
    decayed, others = list(decayed), list(others)
    for variable in decayed + others:
        variable.regularizer = None
    if isinstance(optimizer, LARS):
        _apply_in_lars(optimizer, weight_decay, decayed, others)
        return
    for variable in decayed:
        if weight_decay and not re.search(NORMALIZATION_VARIABLES, variable.path):
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)


def _apply_in_lars(
    optimizer: LARS,
    weight_decay: float,
    decayed: list[keras.Variable],
    others: list[keras.Variable],
) -> None:
    if optimizer.built:
        raise UserError("LARS must not be built before its weight decay is set, got a built one")
    if weight_decay and optimizer.l2_weight_decay:
        raise UserError(
            f"LARS already has weight_decay={optimizer.l2_weight_decay}, got {weight_decay} as well"
        )
    paths = {variable.path for variable in others}
    if shared := paths.intersection(variable.path for variable in decayed):
        raise UserError(
            f"LARS distinguishes variables by path, got both decayed and other variables: {shared}"
        )
    optimizer.l2_weight_decay = optimizer.l2_weight_decay or weight_decay
    optimizer.exclude += tuple(f"^{re.escape(path)}$" for path in sorted(paths))
