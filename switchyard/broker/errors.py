"""Errors of the broker. Each message names the subject, the fact with its value, and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from dramatiq.errors import ConnectionClosed
from dramatiq.results import ResultMissing, ResultTimeout

# A Redis server beside the one that keeps the messages has a variable of its own.
ADDRESSES: Final = "SWITCHYARD_BROKER_URL, or SWITCHYARD_REDIS_URL where that is set,"
CHECK_THE_ADDRESS: Final = f"check {ADDRESSES} and that the server is up"


class SwitchyardError(Exception):
    """Root of every error that Switchyard raises."""


class NotFound(SwitchyardError):
    """The job, letter, alert or other object that an act or a page names is not there, or no longer."""


class ActRefused(SwitchyardError):
    """A person's act on a subject, such as ``job <id>``, cannot be done; nothing was changed.

    ``by_argument``: whatever the state of the subject, since what the person wrote is unusable.
    """

    def __init__(self, subject: str, fact: str, *, by_argument: bool = False) -> None:
        self.fact, self.by_argument = fact, by_argument
        super().__init__(f"{subject}: {fact}")


class ArgumentsRefused(SwitchyardError):
    """The arguments that a person writes do not fit the actor.

    ``faults`` has a fault by the name of a parameter, or by "" for the call as a whole; never a value.
    """

    def __init__(self, text: str, faults: Mapping[str, str] | None = None) -> None:
        self.faults = faults or {}
        super().__init__(text)


class BrokerError(SwitchyardError, ConnectionClosed):
    """The broker did not carry out an operation. Dramatiq's worker replaces the consumer that raises it.

    Attributes:
        remedy: The next step where the server could not be reached, "" otherwise.
        code: First word of the server's error, such as ``WRONGTYPE`` or ``READONLY``; "" where it answered none.
        outcome: ``"refused"`` when the operation did not happen, ``"unknown"`` when it may have.
    """

    remedy = ""
    code = ""
    outcome = "refused"

    @property
    def kind(self) -> str:
        """Name of the client's error class, ``TimeoutError`` for example: unlike its message it holds no address."""
        return type(self.__cause__ or self).__name__


class BrokerRefused(BrokerError):
    """The server answered an operation with an error (``cause``), for example because a key is of a wrong type."""

    def __init__(self, operation: str, cause: str, *, remedy: str = "") -> None:
        self.cause = cause
        remedy = remedy or "check that the server is Switchyard's alone and that its user may run the command"
        super().__init__(f"broker refused {operation}: {cause}; {remedy}")

    @property
    def wrong_type(self) -> bool:
        """Whether a key of the operation, or of its script, is of another type."""
        return "WRONGTYPE" in self.cause


class BrokerUnavailable(BrokerError):
    """The broker did not answer; ``cause`` is the client's message, and ``remedy`` replaces the usual one."""

    fact = "did not answer"

    def __init__(self, operation: str, cause: str, *, outcome: str = "unknown", remedy: str = "") -> None:
        self.operation, self.cause, self.outcome, self.remedy = operation, cause, outcome, remedy
        remedy = remedy or f"{CHECK_THE_ADDRESS}, then try again"
        super().__init__(f"broker {self.fact} {operation}: {cause} (outcome {outcome}); {remedy}")

    def after_a_lost_answer(self) -> BrokerUnavailable:
        """Return this error for an operation that was sent before: an earlier try may have carried it out."""
        made = BrokerUnavailable(self.operation, self.cause, remedy=self.remedy)
        made.code = self.code
        return made


class PlaceChanged(BrokerUnavailable):
    """The server that was asked does not hold the keys any more, or is handing them over; it did nothing."""

    def __init__(self, operation: str, cause: str) -> None:
        super().__init__(operation, cause, outcome="refused", remedy="try again")


class UnknownQueue(SwitchyardError):
    """The yard declares no queue of this name."""

    def __init__(self, queue_name: str, declared: tuple[str, ...]) -> None:
        near = get_close_matches(queue_name, declared, n=1)
        super().__init__(
            f"queue {queue_name!r} is not declared; the yard has {', '.join(declared)}; add it to the topology"
            + (f", or write {near[0]!r}" if near else "")
        )


class SpoiledAttempt(SwitchyardError):
    """An attempt fails although its actor returned. Raised by the after-hook that finds out; it is retried or not as
    any other failure.
    """


def not_quarantined(queue_name: str, message_id: str) -> NotFound:
    """Return the error that a message is not, or no longer, in the quarantine."""
    return NotFound(
        f"message {message_id!r} is not in the quarantine of {queue_name}; "
        "it was requeued or discarded before, see `manage.py switchyard deadletters list --quarantined`"
    )


class BrokerFull(BrokerUnavailable):
    """The server has no memory left for new messages. Messages already there can still be processed."""

    fact = "refused"

    def __init__(self, operation: str, cause: str) -> None:
        remedy = "raise maxmemory on the broker's server (manage.py switchyard broker), then send again"
        super().__init__(operation, f"out of memory: {cause}", outcome="refused", remedy=remedy)


class BrokerUnsafe(BrokerUnavailable):
    """The server may delete waiting messages, so enqueuing is refused. Those already there can still be processed."""

    def __init__(self, operation: str, seen: str) -> None:
        self.outcome = "refused"
        super(BrokerUnavailable, self).__init__(
            f"{operation} is refused, nothing was added: {seen}; "
            "run `CONFIG SET maxmemory-policy noeviction` on the broker's server, then send again"
        )


class QueueFull(SwitchyardError):
    """A queue has as many messages waiting or scheduled as its ``max_depth``, or more; or as many of one tenant."""

    def __init__(
        self,
        queue_name: str,
        depth: int,
        limit: int,
        *,
        of: str = "",
        remedy: str = "or raise max_depth in the topology",
    ) -> None:
        self.queue_name, self.depth, self.limit = queue_name, depth, limit
        super().__init__(
            f"queue {queue_name!r} holds {depth} messages{of} of at most {limit}, nothing was added; "
            f"send again later, {remedy}"
        )


class InvalidDeclaration(SwitchyardError, ValueError):
    """An option of a declared object, such as ``queue mail``, has a value that cannot be used."""

    def __init__(self, subject: str, option: str, value: object, remedy: str) -> None:
        super().__init__(f"{subject}: {option} is {value!r:.200}; {remedy}")


class UnusableAddress(SwitchyardError, ValueError):
    """The address of the broker lacks a part, or has one that cannot be used. Its password is not in the message."""

    def __init__(self, fact: str, remedy: str) -> None:
        self.fact, self.remedy = fact, remedy
        super().__init__(f"the broker's address {fact}; {remedy}")


class InvalidMessageId(SwitchyardError):
    """A message id is not 1 to 200 printable ASCII characters without spaces, or is reserved."""

    def __init__(self, message_id: object) -> None:
        super().__init__(
            f"message id {message_id!r:.210} is not allowed; use 1 to 200 printable ASCII characters without spaces, "
            "not ending with :events or :progress, for example a UUID"
        )


class PayloadTooLarge(SwitchyardError):
    """The body of a message is larger than allowed; ``size_bytes`` may be a lower bound. Nothing was sent."""

    def __init__(self, actor_name: str, size_bytes: int, limit_bytes: int) -> None:
        self.actor_name, self.size_bytes, self.limit_bytes = actor_name, size_bytes, limit_bytes
        super().__init__(
            f"actor {actor_name}: message has {size_bytes} bytes or more of at most {limit_bytes}, it was not sent; "
            "store what is large, and send its name"
        )


class ResultNotStored(SwitchyardError):
    """The result of a job that succeeded is larger than its store takes, or no JSON. It is not stored."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"the job succeeded, and its result {fact}")


class ResultStoreUnavailable(SwitchyardError):
    """A store of results (``database``, ``s3``, ``storage``) failed; the error holds no address and no secret."""

    def __init__(self, store: str, fact: str) -> None:
        self.store = store
        super().__init__(f"result store {store} {fact}; check SWITCHYARD_RESULTS_URL and that the store is up")


class ResultNotKept(SwitchyardError, ResultMissing, ResultTimeout):
    """A result was requested of a job whose actor stores none. Waiting would be in vain."""

    def __init__(self, actor: str, fact: str, remedy: str) -> None:
        super().__init__(f"actor {actor}: {fact}; {remedy}")


class UnencodablePayload(SwitchyardError, ValueError):
    """A value of a message cannot be decoded to an equal one. Nothing was sent.

    Args:
        path: Place of the value: ``args[0]['due']``.
        remedy: Expression to send instead, with ``{}`` for the value; empty when none is known.
    """

    def __init__(self, actor_name: str, path: str, fact: str, remedy: str = "") -> None:
        self.actor_name, self.path, self.fact, self.remedy = actor_name, path, fact, remedy
        # Not str.format: a key in the path may hold braces.
        instead = remedy.replace("{}", path)
        instead = instead or "text, finite numbers, true, false, null, lists, and dicts with text as keys"
        super().__init__(f"actor {actor_name}: {path or 'the message'} {fact}; send {instead}")


class UnreadablePayload(SwitchyardError, ValueError):
    """A body is not a strict JSON object.

    ``path`` is the place of the fault: ``args[0]['due']``, ``byte 12``, ``character 7``; empty for the whole body.
    """

    def __init__(self, path: str, fact: str) -> None:
        self.path, self.fact = path, fact
        super().__init__(f"{path or 'the body'} {fact}; see what enqueued it")
