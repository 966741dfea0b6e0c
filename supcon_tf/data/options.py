"""Checks of the values that users set, by gin or in a script."""

from typing import Any

from supcon_tf.errors import UserError


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
