"""Names in a gin text: the objects they refer to, and suggestions for misspelt names."""

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any


def imported_modules(text: str) -> dict[str, str]:
    """The modules that a gin text imports: name in the text -> module."""
    imports = re.finditer(
        r"^(?:from (?!__gin__)(\S+) )?import (\S+?)(?: as (\w+))?[ \t]*(?:#.*)?$", text, re.M
    )
    found = {}
    for package, module, alias in (match.groups() for match in imports):
        whole = f"{package}.{module}" if package else module
        # Without an alias `import a.b` gives the name a.
        name = alias or (module if package else module.split(".")[0])
        found[name] = whole if package or alias else name
    return found


def resolve(selector: str, modules: Mapping[str, str]) -> Any:
    """The object that a name such as losses.SupConLoss refers to."""
    first, *rest = selector.split(".")
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
