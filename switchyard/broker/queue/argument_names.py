"""Names of the parameters whose arguments JSON does not have, for the sender's error."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from switchyard.broker.errors import UnencodablePayload

_PLACE: Final = re.compile(r"args\[(\d+)\](.*)", re.DOTALL)
_NAMED: Final = re.compile(r"kwargs\['(\w+)'\](.*)", re.DOTALL)


def with_parameter(error: UnencodablePayload, function: Callable[..., Any]) -> UnencodablePayload:
    """Return the error with the parameter's name in place of the argument's number."""
    path = parameter_path(error.path, function)
    return error if path is None else UnencodablePayload(error.actor_name, error.path, error.fact, error.remedy, path)


def parameter_path(path: str, function: Callable[..., Any]) -> str | None:
    """Return ``due['at']`` for ``args[0]['at']``, where ``due`` is the first parameter; ``None`` for no argument."""
    if (named := _NAMED.fullmatch(path)) is not None:
        return named[1] + named[2]
    if (place := _PLACE.fullmatch(path)) is None:
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    at = int(place[1])
    for position, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return f"{parameter.name}[{at - position}]{place[2]}"
        if position == at and parameter.kind is not parameter.KEYWORD_ONLY:
            return parameter.name + place[2]
    return None
