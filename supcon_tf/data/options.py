"""Checks of the values that users set, by gin or in a script."""

import math
import numbers
from typing import Any

from supcon_tf.errors import UserError


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    integer: bool = False,
) -> None:
    """Raises a UserError unless the value is a finite number within the bounds.

    Args:
      name: the setting, as users write it.
      value: its value.
      at_least, above, at_most, below: inclusive and exclusive bounds; None for no bound.
      integer: require an integer.
    """
    kind = numbers.Integral if integer else numbers.Real
    bounds = {">=": at_least, ">": above, "<=": at_most, "<": below}
    fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if (
        fits
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    ):
        return
    limits = " and ".join(f"{sign} {limit}" for sign, limit in bounds.items() if limit is not None)
    wanted = f"{'an integer' if integer else 'a number'} {limits}".strip()
    raise UserError(f"{name} must be {wanted}, got {value!r}")


def check_text(name: str, value: Any, *, example: str) -> None:
    """Raises a UserError unless the value is text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{name} must be text such as {example!r}, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raises a UserError unless the value is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, got {value!r}")


def check_class_name(name: str) -> None:
    """Raises a UserError for a name that cannot be a line of a text file in UTF-8."""
    if not name.strip():
        raise UserError(f"class names must not be empty, got {name!r}: rename the class")
    if name.splitlines() != [name]:
        raise UserError(f"class names must not have line breaks, got {name!r}: rename the class")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"class names must be UTF-8, got {name!r}: rename the class") from None
