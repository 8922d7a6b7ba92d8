"""Outcomes of attempts: decided once for each message, read by every middleware listed before.

Dramatiq calls after-hooks from the last middleware to the first, and drops what they raise. So
:mod:`switchyard.middleware.retries` decides, and the middleware listed before it read the decision here.
"""

import hashlib
import json
import traceback
from pathlib import PurePath
from typing import Any, Literal

import msgspec
from dramatiq.broker import MessageProxy

# Attribute of an exception that holds its text.
TEXT = "_switchyard_text"

Kind = Literal["succeeded", "retried", "dead", "cancelled", "expired", "deferred"]


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of an attempt.

    Args:
        reason: Reason why the message is dead (``exhausted``, ``permanent``, ``poison``, ``suspected_poison``,
            ``time_limit``) or deferred.
        delay_ms: When it runs again, for ``retried`` and ``deferred``.
        refusal: Reason why the retry, or a callback, was refused. ``reason`` stays: the list of reasons is closed.
        expected: The actor declared the exception as one that it raises: it is no error in the log.
    """

    kind: Kind
    reason: str = ""
    delay_ms: int | None = None
    exception: BaseException | None = None
    refusal: str = ""
    expected: bool = False


SUCCEEDED = Outcome("succeeded")
# Innermost frames in the fingerprint of a failure.
FRAMES = 5


def decide(message: MessageProxy, outcome: Outcome) -> Outcome:
    message.outcome = outcome  # type: ignore[attr-defined]
    return outcome


def outcome_of(message: MessageProxy, exception: BaseException | None = None) -> Outcome:
    """Return the outcome that was decided; without one, the outcome that follows from the exception."""
    decided = getattr(message, "outcome", None)
    if isinstance(decided, Outcome):
        return decided
    return SUCCEEDED if exception is None else Outcome("dead", "exhausted", exception=exception)


def text_of(exception: BaseException) -> str:
    """Return an exception's text, made once, or a placeholder when the actor's ``str()`` raises."""
    text = exception.__dict__.get(TEXT)
    if text is None:
        try:
            text = str(exception)
        except Exception:  # noqa: BLE001  the actor's own code
            text = "(its text could not be made)"
        exception.__dict__[TEXT] = text
    return str(text)


def traceback_of(exception: BaseException, limit: int | None = None) -> str:
    """Return an exception's traceback; that of its own frames alone where the whole cannot be formatted."""
    try:
        return "".join(traceback.format_exception(exception, limit=limit))
    except Exception:  # noqa: BLE001  the actor's own code
        frames = "".join(traceback.format_tb(exception.__traceback__, limit=limit))
        return f"{frames}{type(exception).__name__}: {text_of(exception)}\n"


def error_text(exception: BaseException, refusal: str = "") -> str:
    """Return an exception's text, after the refusal of its retry or callback if there was one."""
    return f"{refusal}: {text_of(exception)}" if refusal else text_of(exception)


def attempt(message: Any) -> int:
    """Return the number of the attempt that runs, from 1. A task may have written anything over the count."""
    value = message.options.get("attempts", 0)
    return (value if type(value) is int and value >= 0 else 0) + 1


def fingerprint(actor: str, exception: BaseException) -> str:
    """Return 16 hex digits of actor, exception class, and file and function of the innermost frames."""
    frames = traceback.extract_tb(exception.__traceback__)[-FRAMES:]
    parts = [actor, type(exception).__qualname__]
    parts += [f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def fingerprint_of(arguments: dict[str, Any]) -> str:
    """Return 16 hex digits of arguments (JSON values); equal ones have the same."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, default=repr).encode()).hexdigest()[:16]
