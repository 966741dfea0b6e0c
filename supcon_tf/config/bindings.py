"""Checks of a parsed gin configuration: every value has the kind that its parameter takes.

The kinds come from the annotations of the configured functions and classes. Where one has no
annotation, as in Keras, the default tells bool and float.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import gin

from supcon_tf.config.contracts import BY_COMMANDS, CONTRACTS, Contract
from supcon_tf.config.kinds import (
    EXAMPLES,
    advice,
    bound_value,
    described,
    fits,
    kind_of,
    parameters,
    references,
    selector_of,
)
from supcon_tf.config.names import nearest, resolve
from supcon_tf.errors import UserError


def check_binding(name: str, modules: Mapping[str, str]) -> None:
    """Checks one binding.

    Args:
      name: such as "losses.SupConLoss.temperature".
      modules: name in gin files -> module.

    Raises:
      UserError: an unknown parameter (which gin lets through where there are **kwargs), a value of
        the wrong kind, or a value that the caller replaces.
    """
    scoped_selector, _, parameter = name.rpartition(".")
    selector = scoped_selector.rpartition("/")[2]
    known = parameters(selector, modules)
    if parameter not in known:
        raise UserError(f"{selector} has no parameter {parameter!r}{nearest(parameter, known)}")
    if parameter in BY_COMMANDS and selector.endswith(".run"):
        raise UserError(f"{name} has no effect, as the command sets it: {BY_COMMANDS[parameter]}")
    value = bound_value(name)
    annotation = kind_of(known[parameter])
    if not fits(value, annotation, modules):
        raise UserError(
            f"{name} must be {described(annotation)}, got {value!r}"
            + advice(parameter, value, annotation)
        )
    for reference in references(value):
        contract = None if reference.evaluate else CONTRACTS.get(parameter)
        if contract is not None:
            _check_contract(name, reference, contract, modules)
    if name == "pretrain.run.classification_loss" and value is not None:
        for reference in references(bound_value("pretrain.run.model")):
            if (binding := bound_name(reference, "stop_classifier_gradient")) is not None:
                raise UserError(f"{binding} has no effect with {name}, which needs the gradient")


def _check_contract(
    name: str, reference: Any, contract: Contract, modules: Mapping[str, str]
) -> None:
    """Checks a function that the program calls with arguments of its own."""
    owner, _, _ = name.rpartition(".")
    taken: Mapping[str, Any] = parameters(reference.selector, modules)
    for argument, instead in ({**contract.passes, **contract.names}).items():
        binding = bound_name(reference, argument)
        if binding is not None and bound_value(binding) is not None:
            raise UserError(
                f"{binding} has no effect, as {owner} sets it: set {instead.format(owner=owner)}"
            )
    function = resolve(reference.selector, modules)
    if _is_made_by_program(name, function):
        function = function.__call__
        taken = inspect.signature(function).parameters
    has_any = any(
        parameter.kind == parameter.VAR_KEYWORD
        for parameter in inspect.signature(function).parameters.values()
    )
    refused = [argument for argument in contract.passes if argument not in taken]
    if refused and not has_any:
        raise UserError(
            f"{name} must take {', '.join(contract.passes)}, and {reference.selector} takes no "
            f"{refused[0]!r}: such as {EXAMPLES[name.rpartition('.')[2]]}"
        )


def _is_made_by_program(name: str, function: Any) -> bool:
    """Whether a class is given whose object, made without arguments, the program calls."""
    return name.endswith(".augmentation") and inspect.isclass(function)


def bound_name(reference: Any, parameter: str) -> str | None:
    """The binding that a parameter of a reference has, in its scope or without one."""
    selector = selector_of(reference)
    for end in range(len(reference.scopes), -1, -1):
        name = "/".join([*reference.scopes[:end], f"{selector}.{parameter}"])
        if _is_bound(name):
            return name
    return None


def _is_bound(name: str) -> bool:
    try:
        gin.query_parameter(name)
    except ValueError:
        return False
    return True


def check_arguments(name: str, modules: Mapping[str, str], *, scope: str = "") -> None:
    """Checks that everything that the value of a binding calls has its arguments.

    Args:
      name: such as "pretrain.run.schedule".
      modules: name in gin files -> module.
      scope: scope that the value is built in.

    Raises:
      UserError: an argument that is not set.
    """
    for reference in references(bound_value(name)):
        selector = selector_of(reference)
        contract = None if reference.evaluate else CONTRACTS.get(name.rpartition(".")[2])
        is_made = reference.evaluate or _is_made_by_program(name, resolve(selector, modules))
        inner = "/".join(reference.scopes) or (scope if reference.evaluate else "")
        # A class passes what its base classes need.
        own = inspect.signature(resolve(selector, modules)).parameters
        for number, parameter in enumerate(parameters(selector, modules).values()):
            full = f"{selector}.{parameter.name}"
            # A reference with a scope takes nothing from the name without it, see `parse`.
            scoped = f"{inner}/{full}" if inner else full
            allowed = [scoped] if reference.scopes else [scoped, full]
            bound = next(filter(_is_bound, allowed), None)
            is_passed = not is_made and (
                contract is None
                or number < contract.positional
                or parameter.name in contract.passes
            )
            if bound is not None:
                check_arguments(bound, modules, scope=inner)
            elif parameter.default is parameter.empty and parameter.name in own and not is_passed:
                raise UserError(f'{scoped} is not set: add --gin_param="{scoped} = ..."')
