"""What a gin file imports and calls, and what it may do if its author is not trusted."""

import importlib
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gin import config_parser

from supcon_tf.config.files import IMPORTS, with_includes
from supcon_tf.config.names import resolve
from supcon_tf.errors import UserError

PACKAGES = ("supcon_tf", "keras", "keras_cv", "keras_hub", "tensorflow")
# The parts of Keras, KerasCV and KerasHub whose objects neither read nor write files.
_PARTS = (
    *("activations", "constraints", "initializers", "layers"),
    *("losses", "metrics", "optimizers", "regularizers"),
)

# These run stored code, load a SavedModel, or read a file with a vocabulary.
_CODE = (
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("IntegerLookup", "StringLookup", "TextVectorization"),
)
# Arguments of sources with which they write files.
_WRITING = ("cache_dir", "download")


class _Contents(NamedTuple):
    """The imported modules, by their names in the text, the references after an @, and the values.

    In a value, `...` is in the place of a reference or macro.
    """

    modules: dict[str, str]
    imported: list[str]
    references: list[str]
    values: list[tuple[str, Any]]


class _Collect(config_parser.ParserDelegate):
    """Lists the references of a text and builds nothing."""

    def __init__(self) -> None:
        self.references: list[str] = []

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        self.references.append(scoped_configurable_name.rpartition("/")[2])
        return ...

    def macro(self, macro_name: str) -> Any:
        return ...


def _contents(text: str) -> _Contents:
    """Reads a text with gin's own parser, which imports nothing.

    Raises:
      SyntaxError: it is not gin.
    """
    collect = _Collect()
    modules: dict[str, str] = {}
    imported: list[str] = []
    values: list[tuple[str, Any]] = []
    for statement in config_parser.ConfigParser(text, collect):
        if isinstance(statement, config_parser.BindingStatement):
            values.append((statement.arg_name, statement.value))
        if isinstance(statement, config_parser.IncludeStatement):
            raise UserError(f"write the include of {statement.filename!r} on a line of its own")
        if isinstance(statement, config_parser.ImportStatement):
            module = statement.module
            if module.startswith("__gin__"):
                continue
            imported.append(module)
            is_whole = statement.alias or statement.is_from
            bound = module if is_whole else module.partition(".")[0]
            if modules.setdefault(statement.bound_name(), bound) != bound:
                raise UserError(
                    f"two modules are imported as {statement.bound_name()!r}: rename one"
                )
    return _Contents(modules, imported, collect.references, values)


def foreign_in(text: str) -> list[str]:
    """The modules of other packages that a gin text imports.

    Raises:
      SyntaxError: it is not gin.
    """
    imported = _contents(text).imported
    return sorted({name for name in imported if name.partition(".")[0] not in PACKAGES})


def check_references(text: str) -> None:
    """Rejects references that lead out of the known packages.

    Such as `keras.src.utils.io_utils.os.system`.

    Raises:
      UserError: names the reference.
      SyntaxError: the text is not gin.
    """
    contents = _contents(text)
    for reference in contents.references:
        is_known = _path(reference, contents).partition(".")[0] in PACKAGES
        if is_known and _owner(reference, contents) not in (*PACKAGES, None):
            raise UserError(f"@{reference} is not a function or class of {' or '.join(PACKAGES)}")


def check_untrusted(file: Path) -> None:
    """Checks that a gin file can be used without trust in its author.

    It may import the modules that every gin file has, Keras, KerasCV, KerasHub and TensorFlow, may
    call public functions of this package and build layers, losses and so on, and may include files
    of its own directory and shipped ones.

    Raises:
      UserError: names what it may not import, call, include or set.
    """
    trust = "add --trust if you trust the source of this file"
    try:
        contents = _contents("\n".join([IMPORTS, with_includes(file, within=file.parent)]))
    except (RecursionError, SyntaxError, TypeError, tokenize.TokenError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{str(file)!r} cannot be read: {reason}") from None
    known = set(_contents(IMPORTS).imported)
    for module in contents.imported:
        is_other_package = module.partition(".")[0] in PACKAGES[1:]
        if module not in known and not is_other_package:
            raise UserError(f"{str(file)!r} imports {module!r}, which can run any code: {trust}")
    for reference in contents.references:
        if not _is_harmless(_path(reference, contents), reference, contents, known):
            raise UserError(f"{str(file)!r} calls @{reference}, which can run any code: {trust}")
    for name, value in contents.values:
        if name in _WRITING and value not in (None, False):
            raise UserError(f"{str(file)!r} sets {name}, which writes files anywhere: {trust}")
        if any("class_name" in found for found in _dicts_in(value)):
            raise UserError(
                f"{str(file)!r} sets {name} to an object of Keras, which can run any code: {trust}"
            )


def _dicts_in(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _dicts_in(item)


def _is_harmless(path: str, reference: str, contents: _Contents, known: set[str]) -> bool:
    """Whether a name is a function or class of this package, or a layer and so on of the others."""
    module, _, name = path.rpartition(".")
    package, *parts = module.split(".")
    if package == "supcon_tf":
        return module in known and _is_public(module, name)
    # tensorflow.keras.layers and keras.layers
    part = parts[1:] if parts[:1] == ["keras"] else parts
    is_part = package in PACKAGES and len(part) == 1 and part[0] in _PARTS
    if not is_part or name in (*_CODE, "deserialize", "get"):
        return False
    return _owner(reference, contents) in PACKAGES[1:]


def _is_public(module: str, name: str) -> bool:
    """Whether a name is exported by a package, or a module defines it; not what stages import.

    Such an import may write or remove files.
    """
    if module.startswith(("supcon_tf.stages.", "supcon_tf.studies.")) or name.startswith("_"):
        return False
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return name in found.__all__
    return getattr(getattr(found, name, None), "__module__", None) == module


def _path(reference: str, contents: _Contents) -> str:
    first, dot, rest = reference.partition(".")
    return f"{contents.modules.get(first, first)}{dot}{rest}"


def _owner(reference: str, contents: _Contents) -> str | None:
    """The package that defines what a reference names; None if there is no such thing."""
    try:
        found = resolve(reference, contents.modules)
    except (AttributeError, ImportError):
        return None
    return str(getattr(found, "__module__", "")).partition(".")[0]
