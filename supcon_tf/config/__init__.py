"""Gin files and --gin_param bindings, checked before anything runs, and the resolved text."""

from supcon_tf.config.bindings import bound_name, check_arguments
from supcon_tf.config.files import find, read_text
from supcon_tf.config.kinds import bound_value, references, selector_of
from supcon_tf.config.names import imported_modules
from supcon_tf.config.parse import foreign_modules, parse
from supcon_tf.config.resolved import (
    changed_setting,
    is_complete,
    is_same_measurement,
    parameter_values,
)
from supcon_tf.config.trust import check_untrusted

__all__ = [
    "bound_name",
    "bound_value",
    "changed_setting",
    "check_arguments",
    "check_untrusted",
    "find",
    "foreign_modules",
    "imported_modules",
    "is_complete",
    "is_same_measurement",
    "parameter_values",
    "parse",
    "read_text",
    "references",
    "selector_of",
]
