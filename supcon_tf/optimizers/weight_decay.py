"""L2 weight decay over the parts of a model that a stage decays, for any optimizer."""

import re
from collections.abc import Iterable

import keras

from supcon_tf.errors import UserError
from supcon_tf.optimizers.lars import LARS, NORMALIZATION_VARIABLES


def apply_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    weight_decay: float,
    *,
    decayed: Iterable[keras.Variable],
    others: Iterable[keras.Variable] = (),
) -> None:
    """Decays some variables of a model, by L2 and never in normalisation layers.

    The gradient of every decayed variable gains weight_decay w. LARS adds that itself, and gives
    `others` neither decay nor trust ratio. For any other optimizer the loss gains
    weight_decay ||w||^2 / 2, as regularizers of the variables, which Keras sums into the loss of
    `fit` and `evaluate`; a saved model does not keep them.

    Args:
      optimizer: a LARS is changed, so it must not be built yet; any other is left as it is.
      weight_decay: L2 coefficient.
      decayed: the variables that decay; this replaces any regularizer they have.
      others: the model's other variables; this removes any regularizer they have.

    Raises:
      UserError: if `weight_decay` is negative; for a LARS that is built, has a weight decay of
        its own, or cannot tell `decayed` and `others` apart by path.

    Example:
      >>> import keras
      >>> from supcon_tf.optimizers import apply_weight_decay
      >>> dense = keras.layers.Dense(1, kernel_initializer="ones")
      >>> model = keras.Sequential([keras.Input((4,)), dense])
      >>> apply_weight_decay(keras.optimizers.SGD(), 0.5, decayed=model.trainable_variables)
      >>> float(sum(model.losses))  # 0.5 (1 + 1 + 1 + 1) / 2
      1.0
    """
    if weight_decay < 0:
        raise UserError(f"weight_decay must be >= 0, got {weight_decay}")
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
        raise UserError(f"LARS tells variables by path, got both to decay and not: {shared}")
    optimizer.l2_weight_decay = optimizer.l2_weight_decay or weight_decay
    optimizer.exclude += tuple(f"^{re.escape(path)}$" for path in sorted(paths))
