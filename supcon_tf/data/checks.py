"""Checks of option values: each raises a one-line UserError with the option's name and value."""

import math
import numbers
from collections.abc import Callable, Sequence

from supcon_tf.errors import UserError


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Requires a number in [low, high]."""
    if not (_is_number(value) and low <= value <= high):
        raise UserError(f"{name} must be in [{low}, {high}], got {value!r}")


def check_integer(name: str, value: int, low: int) -> None:
    """Requires an integer >= low."""
    if not (_is_number(value) and isinstance(value, numbers.Integral) and value >= low):
        raise UserError(f"{name} must be an integer >= {low}, got {value!r}")


def check_range(
    name: str, value: Sequence[float], *, high: float = math.inf, example: tuple[float, float]
) -> None:
    """Requires a pair (smallest, largest) with 0 < smallest <= largest <= high."""
    is_pair = isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value))
    if not (is_pair and 0 < value[0] <= value[1] <= high and math.isfinite(value[1])):
        bound = "" if math.isinf(high) else f" <= {high:g}"
        raise UserError(
            f"{name} must be (smallest, largest) with 0 < smallest <= largest{bound}, such as "
            f"{example}, got {value!r}"
        )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Requires one of the choices."""
    if value not in choices:
        raise UserError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def check_callable(name: str, value: Callable, example: str) -> None:
    """Requires a function, which a gin file gives as @name without brackets."""
    if not callable(value):
        raise UserError(f"{name} must be a function such as {example}, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
