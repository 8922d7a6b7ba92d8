"""Errors that actors raise to choose how a failure is treated, and errors of the middleware."""

from __future__ import annotations

import contextlib
import inspect
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dramatiq import GenericActor
from dramatiq.errors import ActorNotFound, Retry
from dramatiq.middleware import MiddlewareError
from dramatiq.threading import Interrupt

from switchyard.broker.errors import SpoiledAttempt, SwitchyardError
from switchyard.broker.queue.arguments import callee_of


def place_of(function: Callable[..., Any]) -> str:
    """Return the file and line of the first decorator of a function, or of an actor's class; "" without Python code."""
    if isinstance(function, GenericActor):
        function = type(function)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None:
        return place(code.co_filename, code.co_firstlineno)
    with contextlib.suppress(OSError, TypeError):  # of no file, or neither function nor class
        return place(inspect.getfile(function), inspect.getsourcelines(function)[1])
    return ""


def place(file: str, line: int) -> str:
    """Return a place as an editor opens it: relative to the working directory for a file below it."""
    path = Path(file)
    with contextlib.suppress(ValueError, OSError):  # elsewhere, or the working directory is gone
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"


LOCK_PAUSE_MS: Final = 4_000


class RetryLater(SwitchyardError, Retry):
    """Retry this job after at least the seconds that another server asked for (``Retry-After``). Spends a retry.

    Args:
        per: Let all jobs of the actor with the same value of this argument wait until then, in the job's queue; none
            spends an attempt. With the name of the actor's dependency, or its argument, all that call it wait, and one
            probes it then, which is an attempt. Where that cannot be, only this job waits, and spends a retry.
    """

    def __init__(self, delay_s: float, reason: str, *, per: str = "") -> None:
        if not isinstance(delay_s, (int, float)) or not math.isfinite(delay_s):
            raise ValueError(f"RetryLater: delay_s is {delay_s!r:.100}; write a number of seconds, as float(header)")
        self.per = per
        super().__init__(reason, delay=max(int(delay_s * 1000), 0))


class LockTaken(SwitchyardError, Retry):
    """Another task holds a lock. Raised in a job, it runs again some seconds later, and spends no retry."""

    def __init__(self, key: str) -> None:
        self.key = key
        delay = random.randint(LOCK_PAUSE_MS // 2, LOCK_PAUSE_MS)  # noqa: S311  no secret
        super().__init__(f"lock {key}: another task holds it; wait for it with wait_s=..., or try later", delay=delay)

    def __reduce__(self) -> tuple[type[LockTaken], tuple[str]]:
        return LockTaken, (self.key,)


class PermanentFailure(SwitchyardError):
    """This job will never succeed: it goes to the dead list without retries."""


class OpenTransaction(SpoiledAttempt):
    """An actor returned with a transaction open. It was rolled back: what the actor wrote in it is not there."""

    def __init__(self, actor_name: str, databases: str) -> None:
        super().__init__(
            f"actor {actor_name}: it returned with a transaction open on {databases}, which was rolled back; "
            "write `with transaction.atomic():` around what belongs together, and no BEGIN"
        )


class UnusableResult(SpoiledAttempt, PermanentFailure):
    """The result of an actor cannot be taken: nothing ran it, or a step or callback does not take it."""


class Cancelled(SwitchyardError):
    """End of a cancelled job, raised in its own code between two steps."""


class CancelInterrupt(Interrupt):
    """Interrupt of the task of a cancelled job that did not end by itself; no ``Exception``, and to be raised again."""


class ArgumentMismatch(SwitchyardError, MiddlewareError):
    """Arguments that do not fit the signature of the actor's function, or its annotations."""

    def __init__(self, actor_name: str, fact: str, function: Callable[..., Any]) -> None:
        place = place_of(callee_of(function))
        declared = f"{actor_name}{inspect.signature(callee_of(function))}" + (f" at {place}" if place else "")
        super().__init__(f"actor {actor_name}: {fact}; it is declared as {declared}")


class MissingWorker(SwitchyardError, RuntimeError):
    """An async actor was called where no worker runs."""

    def __init__(self, actor_name: str, function: Callable[..., Any]) -> None:
        name = getattr(function, "__name__", actor_name)
        place = place_of(function)
        super().__init__(
            f"actor {actor_name}: it is async ({place}), and this process is not a worker, whose event loop runs it; "
            f"write {name}.send(...), or asyncio.run({name}.fn.__wrapped__(...)) to run it here"
        )


class ArgumentMisfit(ArgumentMismatch):
    """A value of a new message that does not fit the annotation of its parameter; the error's text never holds it."""

    def __init__(self, actor_name: str, fact: str, function: Callable[..., Any]) -> None:
        self.fact = fact
        super().__init__(actor_name, fact, function)


class UnknownActor(SwitchyardError, ActorNotFound):
    """An actor that the worker's code does not have."""

    def __init__(self, actor_name: str) -> None:
        super().__init__(
            f"actor {actor_name}: the workers of its queue do not know it; deploy code that has it, then requeue this "
            "message, or discard it"
        )


class DuplicateActor(SwitchyardError, MiddlewareError):
    """Two actors of one name, at two places (``file:line``), of which only one could ever run.

    ``one_module``: both are of the same module. Where the places are equal, a decorator's inner function is meant then.
    """

    def __init__(self, actor_name: str, first: str, second: str, *, one_module: bool = False) -> None:
        fact, remedy = f"is declared at {first} and again at {second}", "rename one function, or write actor_name=..."
        if first == second and one_module:
            fact = f"two actors are called so, the wrapper at {first}"
            remedy = "put @functools.wraps(f) in that decorator, or write actor_name=..."
        elif first == second:
            fact, remedy = f"is declared twice at {first}", "the file is imported under two names; import it by one"
        super().__init__(f"actor {actor_name}: {fact}; {remedy}")


class SendingFile(SwitchyardError, MiddlewareError):
    """A module of actors sends a message while it is imported, at a place (``file:line``)."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place}: this sends a message whenever the file is imported, so once for each process; "
            "write it in a function, such as a view or a command"
        )


class UnknownOption(SwitchyardError, MiddlewareError):
    """An option that no middleware knows, most likely misspelt, or one of a message that only actors can have."""


class InvalidOption(SwitchyardError, MiddlewareError):
    """An option of an actor (declared at ``place``) or a message has a value that cannot be used."""

    def __init__(self, actor_name: str, option: str, value: object, remedy: str, *, place: str = "") -> None:
        super().__init__(f"actor {actor_name}: {option} is {value!r:.200}; {remedy}" + (f" ({place})" if place else ""))


class MoveFailed(SwitchyardError, MiddlewareError):
    """A message could not be deferred, and takes the retry path; or not dead-lettered, and stays with its worker."""
