"""Gin files and --gin_param bindings: found, parsed, and refused with the nearest right name."""

import difflib
import importlib
import importlib.util  # gin uses it without importing it.
import inspect
import re
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import gin

from supcon_tf.errors import UserError

# The modules whose names a file or a binding may use.
IMPORTS = """
from __gin__ import dynamic_registration
import keras
from supcon_tf import distribution
from supcon_tf import losses
from supcon_tf import models
from supcon_tf import optimizers
from supcon_tf.data import corruptions
from supcon_tf.data import mixing
from supcon_tf.data import multi_crop
from supcon_tf.data import pipeline
from supcon_tf.data import semi_supervised
from supcon_tf.data import sources
from supcon_tf.data import views
from supcon_tf.evaluation import classifiers
from supcon_tf.models import momentum_memory
from supcon_tf.models import swav
from supcon_tf.stages import experiment
from supcon_tf.stages import finetune
from supcon_tf.stages import linear
from supcon_tf.stages import pretrain
from supcon_tf.stages import robustness
from supcon_tf.studies import study
"""

# A line of gin's configuration, and what follows of it on lines that begin with a space or bracket.
_BINDING = r"^{} =\s*(.*(?:\n[ \t)\]}}].*)*)"
PLAIN_TYPES = {bool, float, int, str, type(None)}


def parse(files: Sequence[str], bindings: Sequence[str]) -> str:
    """Reads gin files and then bindings, which win, and returns the resolved configuration.

    What was not given stands in it as a comment, with the default that it has.

    Args:
      files: paths, also relative to the folder of gin files that is installed with the package.
      bindings: "name.parameter = value" each.

    Raises:
      UserError: a file or an included one is not there.
      UserError: an unknown name, parameter or macro, a value of another type, or a line that
        cannot be parsed.
    """
    texts = [_with_includes(find(file), ()) for file in files]
    text = "\n".join([IMPORTS, *texts, *bindings])
    modules = _modules(text)
    gin.clear_config()
    try:
        gin.parse_config(text)
        gin.finalize()
    except (
        AttributeError,
        ImportError,
        NameError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        tokenize.TokenError,
    ) as error:
        raise UserError(_explain(error, text, modules)) from None
    resolved = gin.config_str(max_line_length=100)
    # Where a file refers to a macro, a later binding may have taken the place of the reference.
    referred = set(re.findall(r"%(\w+)", text))
    unused = set(re.findall(r"^(\w+) = ", resolved, re.M)) - referred
    if unused:
        known = sorted(referred)
        name = min(unused)
        raise UserError(f"nothing uses the macro {name}{_nearest(name, known)}")
    # Such a macro would be refused where this text is read again.
    for name in _macros(resolved).keys() - set(re.findall(r"%(\w+)", resolved)):
        resolved = re.sub(_BINDING.format(name) + r"\n", "", resolved, flags=re.M)
    given = parameter_values(resolved)
    for name in given:
        _check_binding(name, modules)
    found = sorted(_defaults(resolved, given, modules))
    defaults = (f"# {name} = {value!r}" for name, value in found)
    heading = "# Defaults, where the caller does not give another value:"
    return "\n".join([resolved.rstrip(), "", heading, "# " + 78 * "=", *defaults, ""])


def parameter_values(
    resolved: str, *, defaults: bool = True, macros: bool = False
) -> dict[str, str]:
    """name -> value, both as they stand in a resolved configuration.

    Args:
      resolved: from `parse`.
      defaults: whether those are among them.
      macros: whether a macro in a value is replaced by what it stands for.
    """
    found = re.finditer(_BINDING.format(r"(# )?([\w/.]+\.\w+)"), resolved, re.M)
    values = {match[2]: match[3].strip() for match in found if defaults or not match[1]}
    if macros:
        known = _macros(resolved)
        for _ in known:  # One may stand for another one.
            for name, value in values.items():
                values[name] = re.sub(r"%(\w+)", lambda match: known.get(match[1], match[0]), value)
    return values


def is_same_measurement(resolved: str, other: str) -> bool:
    """Whether two resolved configurations differ at most in which stages a training would run."""
    values, others = (
        {
            name: value
            for name, value in parameter_values(text, macros=True).items()
            if not name.startswith("experiment.")
        }
        for text in (resolved, other)
    )
    return values == others


def _macros(resolved: str) -> dict[str, str]:
    found = re.finditer(_BINDING.format(r"(\w+)"), resolved, re.M)
    return {match[1]: match[2].strip() for match in found}


def bound_value(name: str) -> Any:
    """What a parameter such as "pretrain.run.epochs" was set to; None where it was not.

    For a macro it is what the macro stands for.
    """
    try:
        value = gin.query_parameter(name)
        while isinstance(value, gin.config.ConfigurableReference) and value.selector == "gin.macro":
            value = gin.query_parameter(f"{value.scoped_selector}.value")
        return value
    except ValueError:
        return None


def _with_includes(file: Path, including: Sequence[Path]) -> str:
    """The file's text with included files in their place.

    Gin itself parses an included file apart, where the names that the including one imports are
    unknown, and the other way round; as one text, the imports above hold for all.
    """
    if file.resolve() in including:
        raise UserError(f"{str(file)!r} includes itself")
    # A resolved config.gin has the imports too, where gin does not take them again.
    known = IMPORTS.splitlines()
    text = "".join(
        line
        for line in read_text(file).splitlines(True)
        if not line.strip() or line.strip() not in known
    )
    include = r"""^include\s+(['"])(.+?)\1[ \t]*(?:#.*)?$"""

    def included(match: re.Match[str]) -> str:
        return _with_includes(find(match[2], beside=file), (*including, file.resolve()))

    return re.sub(include, included, text, flags=re.M)


def read_text(file: Path) -> str:
    """The text of a gin file.

    Raises:
      UserError: not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the gin file {str(file)!r} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None


def find(file: str, *, beside: Path | None = None) -> Path:
    """The gin file at a path, or the one of that name that came with the package.

    Args:
      file: its path or name.
      beside: the file that includes it, if one does: then paths start from the nearest folder
        gin_configs above that file, or from its own folder.

    Raises:
      UserError: neither is there.
    """
    roots = [Path()]
    if beside is not None:
        own, *above = beside.resolve().parents
        named = (folder for folder in (own, *above) if folder.name == "gin_configs")
        roots = [next(named, own), own]
    for root in roots:
        if (root / file).is_file():
            return root / file
    below = file.split("gin_configs/")[-1]
    shipped = _shipped()
    if (shipped / below).is_file():
        return shipped / below
    names = [str(path.relative_to(shipped)) for path in sorted(shipped.glob("*/*.gin"))]
    raise UserError(f"no gin file {file!r}{_nearest(below, names)}")


def _shipped() -> Path:
    """gin_configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "gin_configs"
    return inside if inside.is_dir() else package.parent / "gin_configs"


def _explain(error: Exception, text: str, modules: Mapping[str, str]) -> str:
    """Gin's error about a text as one line with the nearest right name."""
    message, *context = str(error).splitlines()
    line = next((part.strip() for part in reversed(context) if "=" in part or "@" in part), "")
    if match := re.match(r"Couldn't resolve selector (\S+);", message):
        module, _, name = match[1].rpartition(".")
        return f"no {name!r} in {module}{_nearest(name, _names_in(module, modules))}"
    if match := re.match(r"'(\S+)' was not provided by an import", message):
        return f"no module {match[1]!r} to configure{_nearest(match[1], list(modules))}"
    if match := re.match(r"Configurable '(\S+)' doesn't have a parameter named '(\S+)'", message):
        parameters = list(_parameters(match[1], modules))
        return f"{match[1]} has no parameter {match[2]!r}{_nearest(match[2], parameters)}"
    if isinstance(error, tokenize.TokenError):
        return "a bracket or quote is not closed" + (f" in: {line}" if line else "")
    if match := re.match(r"No bindings specified for '(\S+)/gin.macro'", message):
        return f"the macro {match[1]} is used but not set: add {match[1]} = ..."
    if match := re.search(r" \(line (\d+)\)$", message):
        line = text.splitlines()[int(match[1]) - 1]
        message = message[: match.start()]
    if message.startswith("Unable to parse value"):
        message += " Text needs quotes, a name @ and a macro %."
    return f"{message} In: {line}" if line else message


def _check_binding(name: str, modules: Mapping[str, str]) -> None:
    """Refuses what gin lets through: an unknown name among **kwargs, a value of another type."""
    selector, _, parameter = name.rpartition(".")
    selector = selector.split("/")[-1]
    known = _parameters(selector, modules)
    if parameter not in known:
        raise UserError(
            f"{selector} has no parameter {parameter!r}{_nearest(parameter, list(known))}"
        )
    annotation = known[parameter].annotation
    kinds = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    given = bound_value(name)
    if isinstance(given, gin.config.ConfigurableReference) or not set(kinds) <= PLAIN_TYPES:
        return
    accepted = {*kinds, int} if float in kinds else set(kinds)
    if type(given) not in accepted:
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise UserError(f"{name} must be {wanted}, got {given!r}")


def _parameters(selector: str, modules: Mapping[str, str]) -> Mapping[str, inspect.Parameter]:
    """The named parameters of a function, or of a class and where it has **kwargs of its bases."""
    found = _resolve(selector, modules)
    makers = [found]
    if inspect.isclass(found):
        bases = [vars(base) for base in found.__mro__[:-1]]
        makers = [base["__init__"] for base in bases if "__init__" in base]
    named: dict[str, inspect.Parameter] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                named.setdefault(parameter.name, parameter)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    named.pop("self", None)
    return named


def _defaults(
    resolved: str, given: Mapping[str, str], modules: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """The parameters of everything that a configuration names, where they have plain defaults."""
    for scoped in set(re.findall(r"(?:^# Parameters for |@)([\w/.]+\.\w+)", resolved, re.M)):
        selector = scoped.split("/")[-1]
        for name, parameter in _parameters(selector, modules).items():
            is_given = f"{scoped}.{name}" in given or f"{selector}.{name}" in given
            is_plain = type(parameter.default) in PLAIN_TYPES | {tuple}
            if is_plain and not is_given and name not in ("name", "learning_rate"):
                yield f"{scoped}.{name}", parameter.default


def _names_in(module: str, modules: Mapping[str, str]) -> list[str]:
    try:
        return [name for name in dir(_resolve(module, modules)) if not name.startswith("_")]
    except (AttributeError, KeyError):
        return []


def _modules(text: str) -> dict[str, str]:
    """What a text imports: name -> module."""
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


def _resolve(selector: str, modules: Mapping[str, str]) -> Any:
    """The object that a name such as losses.SupConLoss stands for in a gin file."""
    first, *rest = selector.split(".")
    found = importlib.import_module(modules.get(first, first))
    for name in rest:
        found = getattr(found, name)
    return found


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known[:12])}"
