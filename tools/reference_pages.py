"""The reference pages of the documentation: public names, and the settings of gin files.

They come from the docstrings and signatures of the imported package.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_origin

from docstrings import Linked, argument, escaped, first_sentence, markdown, sections

from supcon_tf.config.contracts import BY_COMMANDS, CONTRACTS
from supcon_tf.config.files import IMPORTS
from supcon_tf.config.kinds import EXAMPLES, described, parameters
from supcon_tf.config.names import imported_modules, resolve

GIN_CONFIGS = Path(__file__).parents[1] / "gin_configs"

# Page -> module with the names.
API = {
    "losses": "supcon_tf.losses",
    "models": "supcon_tf.models",
    "optimizers": "supcon_tf.optimizers",
    "views": "supcon_tf.data.views",
    "shifted": "supcon_tf.data.shifted",
    "sources": "supcon_tf.data.sources",
    "corruptions": "supcon_tf.data.corruptions",
    "evaluation": "supcon_tf.evaluation",
    "search": "supcon_tf.search",
    "cleaning": "supcon_tf.cleaning",
    "exporting": "supcon_tf.exporting",
    "reporting": "supcon_tf.reporting",
    "distribution": "supcon_tf.distribution",
}
# Configurables that no shipped gin file uses, with what they are given as.
MORE_CONFIGURABLES = """
any.encoder = @models.resnext()
any.source = @sources.arrays()
any.source = @sources.table()
any.source = @sources.label_noise()
any.source = @shifted.tfds()
any.augmentation = @views.augmix
"""
STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
# Methods that only Keras calls.
KERAS_METHODS = {"build", "call", "compute_output_shape", "from_config", "get_config"}

GIN_INTRODUCTION = """# Settings of gin files

Each name below is set as in `--gin_param="losses.SupConLoss.temperature = 0.2"` or by the same line
of a gin file; for one stage with its scope, as in `linear/optimizers.warmup_schedule.decay`.
A value `@name` is a function, `@name()` is what it returns. Arguments that the program passes are
left out. Optimizers, initializers and regularizers of Keras have the names of Keras, as in
`keras.optimizers.SGD.momentum`. `--print_config` shows every setting of an experiment, and
[Settings](../index.md#settings) lists the shipped files."""


def public_names(module: str) -> dict[str, Any]:
    """Name -> function or class: those in __all__, or without it those that the module defines."""
    found = importlib.import_module(module)
    defined = (n for n, value in vars(found).items() if getattr(value, "__module__", "") == module)
    names = getattr(found, "__all__", None) or [n for n in defined if not n.startswith("_")]
    values = {name: getattr(found, name) for name in names}
    return {name: value for name, value in values.items() if callable(value)}


def links(prefix: str) -> Linked:
    """Makes a link of a code that is a public name; `prefix` leads to the API pages."""
    pages = {name: page for page, module in API.items() for name in public_names(module)}

    def linked(code: str) -> str:
        module, _, name = code.rpartition(".")
        page = pages.get(name)
        if page is None or module not in ("", page, API[page]):
            return f"`{code}`"
        return f"[`{code}`]({prefix}{page}.md#{name.lower()})"

    return linked


def api_page(module: str, linked: Linked) -> str:
    """The page of a module: each public name with its signature and docstring."""
    blocks = [f"# {module}", markdown(importlib.import_module(module), linked)]
    for name, value in public_names(module).items():
        blocks += [f"## {name} {{ #{name.lower()} }}", *_entry(name, value, linked)]
        for method, function in _methods(value):
            blocks += [f"### {name}.{method}", *_entry(method, function, linked)]
    return "\n\n".join(blocks) + "\n"


def _entry(name: str, value: Any, linked: Linked) -> list[str]:
    if isinstance(value, property):
        return [markdown(value, linked)]
    if get_origin(value) is not None:  # A name for an annotation.
        return [escaped(described(value).capitalize(), linked)]
    return [f"```python\n{_call(name, value)}\n```", markdown(value, linked)]


def _call(name: str, function: Any) -> str:
    """A call with all parameters and their defaults; in several lines if it is long."""
    written: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind == parameter.KEYWORD_ONLY and not any(p[0] == "*" for p in written):
            written.append("*")
        has_default = parameter.default is not parameter.empty
        default = f"={default_text(parameter.default)}" if has_default else ""
        written.append(f"{STARS.get(parameter.kind, '')}{parameter.name}{default}")
    line = f"{name}({', '.join(written)})"
    if len(line) <= 80:
        return line
    return "\n    ".join([f"{name}(", *(f"{p}," for p in written)]) + "\n)"


def _methods(kind: Any) -> Iterator[tuple[str, Any]]:
    """The documented methods and properties that a class of the package defines."""
    if inspect.isclass(kind):
        hidden = {*KERAS_METHODS, *getattr(kind, "__dataclass_fields__", ())}
        for name in vars(kind):
            member = getattr(kind, name)
            is_method = isinstance(member, property) or inspect.isroutine(member)
            if is_method and member.__doc__ and name[0] != "_" and name not in hidden:
                yield name, member


def default_text(value: Any, names: Mapping[Any, str] = MappingProxyType({})) -> str:
    """A default as it is written in a call; `names` has those of functions and classes."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return names.get(value, value.__name__)
    if type(value).__repr__ is object.__repr__:
        return f"{names.get(type(value), type(value).__name__)}()"
    return repr(value)


@functools.cache
def configurables() -> Mapping[str, Any]:
    """Name in gin files -> function or class.

    They are the names in shipped gin files, without those of Keras, and MORE_CONFIGURABLES.
    """
    text = _gin_text()
    owners = re.findall(r"^(?:\w+/)*(\w+\.\w+)\.\w+ = ", text, re.M)
    values = re.findall(r"@(?:\w+/)*(\w+\.\w+)(?![\w.])", text)
    modules = imported_modules(IMPORTS)
    names = {name for name in (*owners, *values) if name.split(".")[0] in modules}
    return {name: resolve(name, modules) for name in sorted(names)}


@functools.cache
def _gin_text() -> str:
    """All shipped gin files, and a line for each kind of value."""
    files = [path.read_text("utf-8") for path in sorted(GIN_CONFIGS.rglob("*.gin"))]
    examples = [f"any.{parameter} = {value}" for parameter, value in EXAMPLES.items()]
    return "\n".join([*files, *examples, MORE_CONFIGURABLES])


def settings(name: str) -> list[inspect.Parameter]:
    """The parameters of a configurable that a gin file can set: the program passes no value.

    How the program calls it is in the lines of gin files that name it, comments included.
    """
    known = parameters(name, imported_modules(IMPORTS))
    passed = set(BY_COMMANDS) if name.endswith(".run") else set()
    reference = rf"\.(\w+) = .*@(?:\w+/)*{name}(?![\w.(])"
    for parameter in set(re.findall(reference, _gin_text())) & CONTRACTS.keys():
        contract = CONTRACTS[parameter]
        # Of a class as augmentation, the program calls the object.
        if parameter != "augmentation" or not inspect.isclass(configurables()[name]):
            passed.update([*known][: contract.positional], contract.passes)
    return [parameter for parameter in known.values() if parameter.name not in passed]


def description(name: str, parameter: str) -> str:
    """What the docstrings say about a parameter of a configurable."""
    return argument(configurables()[name], parameter, _all_names())


@functools.cache
def _all_names() -> Mapping[str, Any]:
    """The names that docstrings refer to: public ones, and those of gin files."""
    public = [public_names(module) for module in API.values()]
    return {name: value for names in (*public, configurables()) for name, value in names.items()}


def gin_page(linked: Linked) -> str:
    """The settings of every configurable: a table of parameters, defaults and descriptions."""
    names = {value: f"@{name}" for name, value in configurables().items()}
    blocks = [GIN_INTRODUCTION]
    for name, value in configurables().items():
        summary = sections(value)[""].partition("\n\n")[0]
        blocks += [f"## {name} {{ #{name.lower()} }}", escaped(summary, linked)]
        rows = ["| parameter | default | meaning |", "| --- | --- | --- |"]
        for parameter in settings(name):
            is_required = parameter.default is parameter.empty
            default = "required" if is_required else f"`{default_text(parameter.default, names)}`"
            about = first_sentence(description(name, parameter.name)) or "as in Keras"
            rows.append(f"| `{parameter.name}` | {default} | {escaped(about, linked)} |")
        blocks.append("\n".join(rows) if rows[2:] else "No settings.")
    return "\n\n".join(blocks) + "\n"
