"""Names of classes, which are lines of text files."""

from supcon_tf.errors import UserError


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
