"""Gin files and --gin_param bindings: found, parsed, and refused with the nearest right name."""

import difflib
import importlib
import importlib.util  # gin uses it without importing it.
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

# The modules whose names a file or a binding may use.
IMPORTS = """
from __gin__ import dynamic_registration
import keras
from supcon_tf import distribution
from supcon_tf import losses
from supcon_tf import models
from supcon_tf import optimizers
from supcon_tf.data import sources
from supcon_tf.data import views
from supcon_tf.stages import experiment
from supcon_tf.stages import finetune
from supcon_tf.stages import linear
from supcon_tf.stages import pretrain
from supcon_tf.stages import robustness
"""


def parse(files: Sequence[str], bindings: Sequence[str]) -> str:
    """Reads gin files and then bindings, which win, and returns the resolved configuration.

    Args:
      files: paths, also relative to the folder of gin files that is installed with the package.
      bindings: "name.parameter = value" each.

    Raises:
      FileNotFoundError: a file or an included one is not there.
      ValueError: an unknown name, parameter or macro, or a line that cannot be parsed.
    """
    text = "\n".join([IMPORTS, *map(_with_includes, files), *bindings])
    gin.clear_config()
    try:
        gin.parse_config(text)
        gin.finalize()
    except (AttributeError, NameError, SyntaxError, ValueError) as error:
        raise ValueError(_explain(error, text)) from None
    resolved = gin.config_str(max_line_length=100)
    unused = set(re.findall(r"^(\w+) = ", resolved, re.M)) - set(re.findall(r"%(\w+)", resolved))
    if unused:
        known = sorted(set(re.findall(r"%(\w+)", resolved)))
        name = min(unused)
        raise ValueError(f"nothing uses the macro {name}{_nearest(name, known)}")
    return resolved


def _with_includes(file: str) -> str:
    """The file's text with included files in their place.

    Gin itself parses an included file apart, where the names that the including one imports are
    unknown, and the other way round; as one text, the imports above hold for all.
    """
    # A resolved config.gin has the imports too, where gin does not take them again.
    known = IMPORTS.splitlines()
    text = "".join(
        line
        for line in find(file).read_text().splitlines(True)
        if not line.strip() or line.strip() not in known
    )
    return re.sub(r"^include '(.+)'$", lambda match: _with_includes(match[1]), text, flags=re.M)


def find(file: str) -> Path:
    """The gin file at a path, or the one of that name that came with the package.

    Raises:
      FileNotFoundError: neither is there.
    """
    if Path(file).is_file():
        return Path(file)
    below = file.split("gin_configs/")[-1]
    shipped = _shipped()
    if (shipped / below).is_file():
        return shipped / below
    names = [str(path.relative_to(shipped)) for path in sorted(shipped.glob("*/*.gin"))]
    raise FileNotFoundError(f"no gin file {file!r}{_nearest(below, names)}")


def _shipped() -> Path:
    """gin_configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "gin_configs"
    return inside if inside.is_dir() else package.parent / "gin_configs"


def _explain(error: Exception, text: str) -> str:
    """Gin's error about a text as one line with the nearest right name."""
    message, *context = str(error).splitlines()
    line = next((part.strip() for part in reversed(context) if "=" in part or "@" in part), "")
    if match := re.match(r"Couldn't resolve selector (\S+);", message):
        module, _, name = match[1].rpartition(".")
        return f"no {name!r} in {module}{_nearest(name, _names_in(module))}"
    if match := re.match(r"'(\S+)' was not provided by an import", message):
        modules = re.findall(r"import (\w+)$", IMPORTS, re.M)
        return f"no module {match[1]!r} to configure{_nearest(match[1], modules)}"
    if match := re.match(r"Configurable '(\S+)' doesn't have a parameter named '(\S+)'", message):
        parameters = list(inspect.signature(_resolve(match[1])).parameters)
        return f"{match[1]} has no parameter {match[2]!r}{_nearest(match[2], parameters)}"
    if match := re.match(r"No bindings specified for '(\S+)/gin.macro'", message):
        return f"the macro {match[1]} is used but not set: add {match[1]} = ..."
    if match := re.search(r" \(line (\d+)\)$", message):
        line = text.splitlines()[int(match[1]) - 1]
        message = message[: match.start()]
    return f"{message} In: {line}" if line else message


def _names_in(module: str) -> list[str]:
    try:
        return [name for name in dir(_resolve(module)) if not name.startswith("_")]
    except (AttributeError, KeyError):
        return []


def _resolve(selector: str) -> Any:
    """The object that a name such as losses.SupConLoss stands for in a gin file."""
    imported = re.findall(r"^from (supcon_tf\S*) import (\w+)$", IMPORTS, re.M)
    modules = {name: f"{package}.{name}" for package, name in imported}
    first, *rest = selector.split(".")
    found = importlib.import_module(modules.get(first, first))
    for name in rest:
        found = getattr(found, name)
    return found


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known[:12])}"
