"""Kinds of values: which a parameter takes, by its annotation, and whether a gin value is one."""

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import gin

from supcon_tf.config.names import resolve
from supcon_tf.errors import UserError

Reference = gin.config.ConfigurableReference

# What to write for a parameter that takes an object or a function.
EXAMPLES = {
    "augmentation": "@views.simclr",
    "bias_initializer": "'zeros'",
    "batches": "@pipeline.training_batches",
    "callbacks": "(@losses.MarginAnnealing, @keras.callbacks.CSVLogger())",
    "classification_head": "@models.classification_head",
    "classification_loss": "@losses.CrossEntropyLoss()",
    "classifier": "@classifiers.saved_model",
    "corrupted": "@corruptions.on_the_fly",
    "crop": "@views.random_resized_crop",
    "encoder": "@models.resnet()",
    "eval_crop": "@views.eval_crop",
    "evaluations": "('robustness',)",
    "kernel_initializer": "'he_normal'",
    "labelled": "@sources.subset()",
    "loss": "@losses.SupConLoss()",
    "mixing": "@mixing.mixup",
    "model": "@models.contrastive_model",
    "optimizer": "@keras.optimizers.SGD",
    "preprocessing": "@views.Preprocessing()",
    "projection_head": "@models.projection_head",
    "projection": "(128, 128)",
    "schedule": "@optimizers.warmup_schedule",
    "source": "@sources.digits()",
    "stages": "('pretrain', 'linear')",
    "strategy": "@distribution.strategy()",
    "support": "@sources.subset()",
    "views": "@pipeline.training_batches",
}


def parameters(selector: str, modules: Mapping[str, str]) -> Mapping[str, inspect.Parameter]:
    """The named parameters of a function, or of a class and, if it takes **kwargs, its bases.

    Args:
      selector: a name in a gin file, such as "losses.SupConLoss".
      modules: name in gin files -> module.
    """
    return _parameters_of(resolve(selector, modules))


@functools.cache
def _parameters_of(found: Any) -> Mapping[str, inspect.Parameter]:
    makers = [found]
    if inspect.isclass(found):
        bases = [vars(base) for base in found.__mro__[:-1]]
        makers = [base["__init__"] for base in bases if "__init__" in base]
    named: dict[str, inspect.Parameter] = {}
    for maker in makers:
        signature = inspect.signature(maker).parameters.values()
        hints = _hints(maker)
        for parameter in signature:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                hint = hints.get(parameter.name, parameter.empty)
                named.setdefault(parameter.name, parameter.replace(annotation=hint))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in signature):
            break
    named.pop("self", None)
    return types.MappingProxyType(named)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def kind_of(parameter: inspect.Parameter) -> Any:
    """The annotation of a parameter, or the type of its default."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    # Keras has few annotations. A default such as 1 or "valid" does not exclude other kinds.
    return {bool: bool, float: float | None}.get(type(parameter.default), Any)


def bound_value(name: str) -> Any:
    """The value bound to a name such as "pretrain.run.epochs", or None; macros are resolved."""
    try:
        value = gin.query_parameter(name)
    except ValueError:
        return None
    return _without_macros(value)


def _without_macros(value: Any) -> Any:
    names: list[str] = []
    while isinstance(value, Reference) and value.selector == "gin.macro":
        if value.scoped_selector in names:
            raise UserError(f"the macro {'/'.join(value.scopes)} refers to itself")
        names.append(value.scoped_selector)
        value = gin.query_parameter(f"{value.scoped_selector}.value")
    if isinstance(value, (list, tuple)):
        return type(value)(_without_macros(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_macros(item) for key, item in value.items()}
    return value


def references(value: Any) -> Iterator[Any]:
    """All references in a value, also inside tuples and dicts."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        yield from references(list(value.values()))


def selector_of(reference: Any) -> str:
    """The name of a reference as gin writes it, without its scope."""
    return repr(reference).strip("@()").rpartition("/")[2]


def fits(value: Any, annotation: Any, modules: Mapping[str, str]) -> bool:
    """Whether a value of a gin file is of the annotated kind; True where that cannot be known."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(
        annotation, typing.TypeVar
    ):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, argument, modules) for argument in arguments)
    if isinstance(value, Reference):
        return _reference_fits(value, annotation, modules)
    if annotation in (None, type(None)):
        return value is None
    if _is_function(annotation):
        return False
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple or annotation is tuple:
        return isinstance(value, (list, tuple)) and _items_fit(value, arguments, modules)
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return isinstance(value, (list, tuple)) and _items_fit(value, (*arguments, ...), modules)
    if origin in (dict, collections.abc.Mapping):
        kinds = arguments or (Any, Any)
        return isinstance(value, dict) and all(
            fits(item, kind, modules) for pair in value.items() for item, kind in zip(pair, kinds)
        )
    if annotation is float:
        return type(value) in (int, float)
    if not inspect.isclass(annotation):
        return True
    return type(value) is (str if annotation is Path else annotation)


def _items_fit(values: Any, kinds: tuple[Any, ...], modules: Mapping[str, str]) -> bool:
    if not kinds:
        return True
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(values)
    return len(values) == len(kinds) and all(
        fits(value, kind, modules) for value, kind in zip(values, kinds)
    )


def _reference_fits(reference: Any, annotation: Any, modules: Mapping[str, str]) -> bool:
    made = _made_by(reference.selector, modules)
    if _is_function(annotation):
        if reference.evaluate:
            # It may return a function.
            return not inspect.isclass(made) or _has_call(made)
        if _is_protocol(annotation) and inspect.isclass(made) and _has_call(made):
            return True  # The program makes the object.
        wanted = get_args(annotation)[-1:] or [_hints(annotation.__call__).get("return", Any)]
        return _is_subclass(made, wanted[0])
    return reference.evaluate and _is_subclass(made, annotation)


def _made_by(selector: str, modules: Mapping[str, str]) -> Any:
    """The class whose object a call returns, or Any."""
    found = resolve(selector, modules)
    return found if inspect.isclass(found) else _hints(found).get("return", Any)


def _is_subclass(made: Any, wanted: Any) -> bool:
    wanted = get_origin(wanted) or wanted
    if Any in (made, wanted):  # Since Python 3.11, Any is a class.
        return True
    return not (inspect.isclass(made) and inspect.isclass(wanted)) or issubclass(made, wanted)


def _is_function(annotation: Any) -> bool:
    return _is_protocol(annotation) or collections.abc.Callable in (
        annotation,
        get_origin(annotation),
    )


def _is_protocol(annotation: Any) -> bool:
    return inspect.isclass(annotation) and getattr(annotation, "_is_protocol", False)


def _has_call(kind: Any) -> bool:
    return any("__call__" in vars(base) for base in kind.__mro__)


def described(annotation: Any) -> str:
    """A kind in words, for an error message."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(described(argument) for argument in arguments)
    if annotation in (None, type(None)):
        return "None"
    if origin is Literal:
        return f"one of {arguments}" if len(arguments) > 1 else repr(arguments[0])
    if _is_function(annotation):
        return "a function (@ and a name, no brackets)"
    if origin is tuple and arguments and arguments[-1] is not ...:
        return f"({', '.join(map(described, arguments))})"
    if origin in (tuple, list, collections.abc.Sequence, collections.abc.Iterable):
        return f"({described(arguments[0])}, ...)" if arguments else "(..., ...)"
    if origin in (dict, collections.abc.Mapping):
        return "{" + ": ".join(map(described, arguments)) + "}"
    if annotation in (bool, int, float, str):
        return annotation.__name__
    return f"a {getattr(annotation, '__name__', annotation)}"


def advice(parameter: str, value: Any, annotation: Any) -> str:
    """What to write instead, as the end of a message."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    kinds = get_args(annotation) if is_union else (annotation,)
    takes_function = any(map(_is_function, kinds))
    if isinstance(value, Reference) and takes_function and value.evaluate:
        return f": write {repr(value)[:-2]} without brackets"
    if isinstance(value, Reference) and not takes_function and not value.evaluate:
        return f": write {value!r}() with brackets"
    is_plain = {*kinds} <= {bool, float, int, str, type(None)}
    return f": such as {EXAMPLES[parameter]}" if parameter in EXAMPLES and not is_plain else ""
