"""Parses gin files and bindings and returns the resolved configuration."""

import ast
import importlib.util  # noqa: F401  # gin uses it without importing it.
import inspect
import io
import math
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin

from supcon_tf.config.bindings import check_binding
from supcon_tf.config.files import IMPORTS, find, with_includes
from supcon_tf.config.kinds import bound_value, parameters, references, selector_of
from supcon_tf.config.names import imported_modules, names_in, nearest
from supcon_tf.config.resolved import BINDING, DEFAULTS_HEADING, macros_in, parameter_values
from supcon_tf.config.trust import check_references, foreign_in
from supcon_tf.errors import UserError

PLAIN_TYPES = {bool, float, int, str, type(None)}
GIN_ERRORS = (
    AttributeError,
    ImportError,
    NameError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def parse(files: Sequence[str], bindings: Sequence[str]) -> str:
    """Reads gin files and then bindings, which win, and returns the resolved configuration.

    A parameter that is not set is in the text as a comment with its default.

    A scoped name, such as linear/optimizers.LARS, does not inherit from the unscoped name: what is
    set only without a scope keeps its default in the scope, and the text shows that default.

    Args:
      files: paths, or names of shipped gin files.
      bindings: "name.parameter = value" each.

    Raises:
      UserError: a missing file, or one that is not text; an unknown name, parameter, macro or
        scope; a value of the wrong kind, or one that the program replaces; or a syntax error.
    """
    text = _whole_text(files, bindings)
    modules = imported_modules(text)
    gin.clear_config()
    try:
        check_references(text)
        _check_numbers(text)
        gin.parse_config(text)
        gin.finalize()
        names = list(parameter_values(gin.config_str(max_line_length=100)))
        for name in sorted(names, key=lambda name: not name.startswith("pretrain.")):
            check_binding(name, modules)
        with gin.unlock_config():
            _close_scopes(names, modules)
    except UserError:
        raise
    except GIN_ERRORS as error:
        raise UserError(_explain(error, text, modules)) from None
    resolved = _without_unused_macros(gin.config_str(max_line_length=100), text)
    given = parameter_values(resolved)
    found = sorted(_defaults(resolved, given, modules))
    defaults = (f"# {name} = {value!r}" for name, value in found)
    lines = [resolved.rstrip(), "", DEFAULTS_HEADING, "# " + 78 * "=", *defaults, ""]
    return "\n".join(lines)


def foreign_modules(files: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """The modules of other packages that gin files and bindings import; their code would run.

    Raises:
      UserError: as in `parse`.
    """
    text = _whole_text(files, bindings)
    try:
        return foreign_in(text)
    except UserError:
        raise
    except GIN_ERRORS as error:
        raise UserError(_explain(error, text, imported_modules(text))) from None


def _whole_text(files: Sequence[str], bindings: Sequence[str]) -> str:
    """The text of gin files, with what they include, and bindings; see `parse`."""
    for binding in bindings:
        if not re.match(r"\s*(import|from)\s|[^=\n]+=", binding):
            raise UserError(f"a setting is written as name.parameter = value, got {binding!r}")
    texts = [with_includes(find(file)) for file in files]
    return "\n".join([IMPORTS, *texts, *bindings])


def _close_scopes(names: Sequence[str], modules: Mapping[str, str]) -> None:
    """Binds, in every scope, the defaults of parameters that are set only without a scope."""
    used = [reference for name in names for reference in references(bound_value(name))]
    scopes = {"/".join(reference.scopes) for reference in used if reference.scopes}
    for name in names:
        scope = name.rpartition("/")[0]
        if scope and scope not in scopes:
            raise UserError(
                f"{name} has no effect, as no reference has the scope {scope!r}"
                f"{nearest(scope, sorted(scopes))}"
            )
    for reference in used:
        if not reference.scopes:
            continue
        selector = selector_of(reference)
        known = parameters(selector, modules)
        for name in names:
            owner, _, parameter = name.rpartition(".")
            scoped = f"{'/'.join(reference.scopes)}/{name}"
            default = known[parameter].default if owner == selector else None
            if owner == selector and scoped not in names and default is not inspect.Parameter.empty:
                gin.bind_parameter(scoped, default)


def _without_unused_macros(resolved: str, text: str) -> str:
    # Where a file refers to a macro, a later binding may have replaced the reference.
    referred = set(re.findall(r"%(\w+)", text))
    unused = set(re.findall(r"^(\w+) = ", resolved, re.M)) - referred
    if unused:
        name = min(unused)
        raise UserError(f"nothing uses the macro {name}{nearest(name, sorted(referred))}")
    # Such a macro would be rejected when this text is parsed again.
    for name in macros_in(resolved).keys() - set(re.findall(r"%(\w+)", resolved)):
        resolved = re.sub(BINDING.format(name) + r"\n", "", resolved, flags=re.M)
    return resolved


def _explain(error: Exception, text: str, modules: Mapping[str, str]) -> str:
    """Gin's error about a text in one line, with a suggestion for a misspelt name."""
    message, *context = str(error).splitlines() or [""]
    line = next((part.strip() for part in reversed(context) if "=" in part or "@" in part), "")
    if match := re.match(r"Couldn't resolve selector (\S+);", message):
        module, _, name = match[1].rpartition(".")
        return f"no {name!r} in {module}{nearest(name, names_in(module, modules))}"
    if match := re.match(r"'(\S+)' was not provided by an import", message):
        return f"no module {match[1]!r} to configure{nearest(match[1], modules)}"
    if match := re.match(r"Configurable '(\S+)' doesn't have a parameter named '(\S+)'", message):
        known = parameters(match[1], modules)
        return f"{match[1]} has no parameter {match[2]!r}{nearest(match[2], known)}"
    if match := re.match(r"No module named '(\S+)'", message):
        # keras_cv is the one package that a shipped file imports and the install leaves out.
        package = "'supcon-tf[keras-cv]'" if match[1] == "keras_cv" else "the package it is in"
        return f"no module {match[1]!r} to import: pip install {package}"
    if isinstance(error, tokenize.TokenError):
        return "a bracket or quote is not closed" + (f" in: {line}" if line else "")
    if match := re.match(r"No bindings specified for '(\S+)/gin.macro'", message):
        return f"the macro {match[1]} is used but not set: add {match[1]} = ..."
    if message.startswith("malformed node") and (word := _unquoted_word(text)):
        return (
            f"{word!r} is not a value: text needs quotes, True and False a capital, a name @ and a "
            "macro %"
        )
    if message.startswith("not enough values to unpack"):
        return "a setting is written as name.parameter = value"
    if match := re.search(r" \(line (\d+)\)$", message):
        line = text.splitlines()[int(match[1]) - 1]
        message = message[: match.start()]
    if message.startswith("Unable to parse value"):
        message += " Text needs quotes, a name @ and a macro %."
    return f"{message} In: {line}" if line else message


def _check_numbers(text: str) -> None:
    """Rejects 1e400, which Python reads as infinity and gin leaves out of the resolved text."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        value = ast.literal_eval(token.string) if token.type == tokenize.NUMBER else 0
        if isinstance(value, float) and math.isinf(value):
            raise UserError(f"{token.string} is too large for a number in: {token.line.strip()}")


def _unquoted_word(text: str) -> str | None:
    """The first word in a value that is neither quoted nor a name with @ or %."""
    before, in_value = "", False
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            in_value = False
        elif token.string == "=":
            in_value = True
        elif (
            in_value
            and token.type == tokenize.NAME
            and before not in ("@", "%", ".", "/")
            and token.string not in ("True", "False", "None")
        ):
            return token.string
        before = token.string
    return None


def _defaults(
    resolved: str, given: Mapping[str, str], modules: Mapping[str, str]
) -> Iterator[tuple[str, Any]]:
    """The parameters of everything that a configuration names, where they have plain defaults."""
    for scoped in set(re.findall(r"(?:^# Parameters for |@)([\w/.]+\.\w+)", resolved, re.M)):
        for name, parameter in parameters(scoped.split("/")[-1], modules).items():
            is_plain = type(parameter.default) in PLAIN_TYPES | {tuple}
            is_given = f"{scoped}.{name}" in given
            if is_plain and not is_given and name not in ("name", "learning_rate"):
                yield f"{scoped}.{name}", parameter.default
