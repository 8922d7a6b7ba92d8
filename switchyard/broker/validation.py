"""Checks of declared values. Each error names the subject, the value and the remedy."""

from __future__ import annotations

import inspect
import math
from typing import Any, Final

from switchyard.broker.errors import InvalidDeclaration

# One year: a longer delay is a mistake, and a message that is due after the year 9999 cannot be decoded.
LONGEST_DELAY_MS: Final = 366 * 24 * 3_600_000


def require(usable: bool, subject: str, option: str, value: object, remedy: str) -> None:
    """Raise ``InvalidDeclaration`` for a value of a declared object, such as ``queue mail``, that is not usable."""
    if not usable:
        raise InvalidDeclaration(subject, option, value, remedy)


def is_whole(value: Any, *, least: int = 0, most: int | None = None) -> bool:
    """Return whether a value is an ``int`` within limits. A ``bool`` is not accepted."""
    return type(value) is int and value >= least and (most is None or value <= most)


def is_whole_or_none(value: Any, *, least: int = 0) -> bool:
    return value is None or is_whole(value, least=least)


def is_duration(value: Any) -> bool:
    """Return whether a value is a finite number above zero."""
    return type(value) in (int, float) and 0 < value < math.inf


def is_delay(value: Any) -> bool:
    """Return whether a value is a number from 0 to a year, in milliseconds."""
    return type(value) in (int, float) and 0 <= value <= LONGEST_DELAY_MS


def whole_delay(delay_ms: Any) -> Any:
    """Return a delay in whole milliseconds as Dramatiq means it: a negative one is none, a fraction is rounded up.

    A value that is no finite number is returned as it is.
    """
    if type(delay_ms) not in (int, float) or not math.isfinite(delay_ms):
        return delay_ms
    return max(math.ceil(delay_ms), 0)


def takes_arguments(function: Any, count: int) -> bool:
    """Return whether a function takes so many positional arguments. One without a signature is accepted."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
