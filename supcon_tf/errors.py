"""The error for a user's mistake, and checks of option values that raise it."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any


class UserError(ValueError):
    """A wrong value that the user can correct; its message names the value and the fix.

    The commands print it as one line and exit with code 2. Any other exception is a bug and shows
    its traceback.
    """


class Stopped(BaseException):
    """A signal stopped the command, which exits with 128 + the signal's number.

    Args:
      message: one line.
      number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


def check_integer(name: str, value: Any, *, at_least: int) -> int:
    """Returns `value` as an int.

    Raises:
      UserError: not an integer, or below `at_least`.

    Example:
      >>> from supcon_tf.errors import check_integer
      >>> check_integer("num_views", 2, at_least=1)
      2
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < at_least:
        raise UserError(f"{name} must be an integer >= {at_least}, got {value!r}")
    return number


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Checks that a Python or NumPy number is finite and within its limits.

    Raises:
      UserError: not a number, NaN, infinite or outside the limits.

    Example:
      >>> from supcon_tf.errors import check_number
      >>> check_number("momentum", 0.9, at_least=0, below=1)
    """
    limits = ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
    wanted = " and ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)
    try:
        is_number = not isinstance(value, bool | str) and not getattr(value, "ndim", 0)
        number = float(value) if is_number else math.nan
    except (TypeError, ValueError):
        number = math.nan
    is_right = (
        math.isfinite(number)
        and (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )
    if not is_right:
        raise UserError(f"{name} must be a number{wanted and ' ' + wanted}, got {value!r}")


def check_range(
    name: str, value: Any, *, at_most: float = math.inf, example: tuple[float, float]
) -> None:
    """Checks that a value is a pair (smallest, largest), both positive.

    Raises:
      UserError: not a pair of finite numbers 0 < smallest <= largest <= `at_most`.

    Example:
      >>> from supcon_tf.errors import check_range
      >>> check_range("area_range", (0.2, 1.0), at_most=1, example=(0.08, 1.0))
    """
    is_pair = isinstance(value, Sequence) and len(value) == 2
    is_pair = is_pair and all(isinstance(number, numbers.Real) for number in value)
    if not (is_pair and 0 < value[0] <= value[1] <= at_most and math.isfinite(value[1])):
        limit = "" if math.isinf(at_most) else f" <= {at_most:g}"
        raise UserError(
            f"{name} must be (smallest, largest) with 0 < smallest <= largest{limit}, such as "
            f"{example}, got {value!r}"
        )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks that a value is one of the choices.

    Raises:
      UserError: it is not.
    """
    if value not in choices:
        raise UserError(f"{name} must be one of {tuple(choices)}, got {value!r}")


def check_text(name: str, value: Any, *, example: str) -> None:
    """Checks that a value is text that is not empty.

    Raises:
      UserError: it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{name} must be text such as {example!r}, got {value!r}")
    if "\0" in value:
        raise UserError(f"{name} must not have a NUL character, got {value!r}")


def check_flag(name: str, value: Any, *, optional: bool = False) -> None:
    """Checks that a value is True or False, or with `optional` None; "False" would count as True.

    Raises:
      UserError: it is not.
    """
    if not (type(value).__name__ in ("bool", "bool_") or (optional and value is None)):
        choices = "True, False or None" if optional else "True or False"
        raise UserError(f"{name} must be {choices}, got {value!r}")


def check_callable(name: str, value: Any, *, example: str) -> None:
    """Checks that a value is a function or a class, which gin files give without brackets.

    Raises:
      UserError: it cannot be called.
    """
    if not callable(value):
        raise UserError(f"{name} must be a function such as {example}, got {value!r}")
