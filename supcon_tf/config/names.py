"""Names in a gin text: the objects they refer to, and suggestions for misspelt names."""

import contextlib
import difflib
import importlib
import tokenize
from collections.abc import Iterable, Mapping
from typing import Any

from gin import config_parser


class _Ignore(config_parser.ParserDelegate):
    """Builds nothing of what a text refers to."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> None:
        pass

    def macro(self, macro_name: str) -> None:
        pass


def imported_modules(text: str) -> dict[str, str]:
    """The modules that a gin text imports above its first error: name in the text -> module.

    Gin's own parser finds them, so that a line within a string is not an import.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(RecursionError, SyntaxError, TypeError, tokenize.TokenError):
        for statement in config_parser.ConfigParser(text, _Ignore()):
            if not isinstance(statement, config_parser.ImportStatement):
                continue
            name, is_whole = statement.bound_name(), statement.is_from or statement.alias
            if not statement.module.startswith("__gin__"):
                # Without an alias `import a.b` gives the name a.
                found[name] = statement.module if is_whole else name
    return found


def resolve(selector: str, modules: Mapping[str, str]) -> Any:
    """The object that a name such as losses.SupConLoss refers to."""
    first, *rest = selector.split(".")
    if first not in modules and first != "gin":
        raise ImportError(f"no module {first!r} is imported")
    found = importlib.import_module(modules.get(first, first))
    for name in rest:
        found = getattr(found, name)
    return found


def names_in(module: str, modules: Mapping[str, str]) -> list[str]:
    """The public names of a module or class; none if it does not exist."""
    try:
        return [name for name in dir(resolve(module, modules)) if not name.startswith("_")]
    except (AttributeError, ImportError):
        return []


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known name, or some names."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known[:12])}"
