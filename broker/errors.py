"""Errors of the transport. Each says what was wrong, the value, and what to do."""

from __future__ import annotations

from dramatiq.errors import ConnectionClosed


class SwitchyardError(Exception):
    """Root of every error that Switchyard raises."""


class BrokerError(SwitchyardError, ConnectionClosed):
    """An operation that the broker did not do. Dramatiq's worker answers it with a new consumer.

    Attributes:
        code: First word of the server's error: ``WRONGTYPE``, ``READONLY``, ``LOADING``; "" where it answered none.
        outcome: ``"refused"`` when the operation did not happen, ``"unknown"`` when it may have.
    """

    code = ""
    outcome = "refused"

    @property
    def kind(self) -> str:
        """Name of the client's error class, ``TimeoutError`` for example: unlike its message it holds no address."""
        return type(self.__cause__ or self).__name__


class LeaseLost(BrokerError):
    """A consumer whose owner has no lease any more: other owners have its messages."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"{owner} lost its lease, others have its messages; it goes on under another owner's name")


class BrokerRefused(BrokerError):
    """The server answered an operation with an error, for example because a key is of a wrong type.

    Args:
        operation: The operation or command.
        cause: The server's error, starting with its code: ``WRONGTYPE``, ``NOPERM``, ``ERR``.
    """

    def __init__(self, operation: str, cause: str) -> None:
        self.cause = cause
        super().__init__(
            f"broker refused {operation}: {cause}; "
            "check that the server is Switchyard's alone and that its user may run the command"
        )


class BrokerUnavailable(BrokerError):
    """The broker did not answer.

    Args:
        operation: The operation or command.
        cause: The client's message.
        outcome: ``"unknown"`` when the operation may have happened, ``"refused"`` when it did not.
    """

    def __init__(self, operation: str, cause: str, *, outcome: str = "unknown") -> None:
        self.outcome = outcome
        super().__init__(
            f"broker did not answer {operation}: {cause} (outcome {outcome}); "
            "check SWITCHYARD_BROKER_URL and that the server is up, then try again"
        )


class UnknownQueue(SwitchyardError):
    """A queue that the yard does not declare."""

    def __init__(self, queue_name: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"queue {queue_name!r} is not declared; the yard has {', '.join(declared)}; add it to project/topology.py"
        )


class UnknownPool(SwitchyardError):
    """A pool that the yard does not declare."""

    def __init__(self, pool_name: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"pool {pool_name!r} is not declared; the yard has {', '.join(declared)}; see project/topology.py"
        )


class NoSuchDeadLetter(SwitchyardError):
    """A dead letter is not, or no longer, in its dead list."""

    def __init__(self, queue_name: str, message_id: str) -> None:
        super().__init__(
            f"dead letter {message_id!r} is not in {queue_name}-dead; "
            "it was requeued or discarded before, see `manage.py deadletters list`"
        )


class BrokerFull(BrokerUnavailable):
    """The server has no memory left for new messages. What is there can still be worked off.

    Args:
        operation: What was refused.
        cause: The server's own words.
    """

    def __init__(self, operation: str, cause: str) -> None:
        super().__init__(operation, f"out of memory: {cause}", outcome="refused")


class BrokerUnsafe(BrokerUnavailable):
    """The server would delete waiting messages, so it is given no new ones. What is there can still be worked off.

    Args:
        operation: What was refused.
        seen: What makes it unsafe, as whoever watches the server wrote it.
    """

    def __init__(self, operation: str, seen: str) -> None:
        self.outcome = "refused"
        super(BrokerUnavailable, self).__init__(
            f"{operation} is refused, nothing was added: {seen}; "
            "run `CONFIG SET maxmemory-policy noeviction` on the broker's server, then send again"
        )


class QueueFull(SwitchyardError):
    """A queue that holds as many messages as it may.

    Args:
        queue_name: The full one.
        depth: Messages waiting or scheduled in it.
        limit: What its declaration allows.
    """

    def __init__(self, queue_name: str, depth: int, limit: int) -> None:
        self.queue_name, self.depth, self.limit = queue_name, depth, limit
        super().__init__(
            f"queue {queue_name!r} holds {depth} messages of at most {limit}, nothing was added; "
            "send again later, or raise max_depth in project/topology.py"
        )


class InvalidDeclaration(SwitchyardError, ValueError):
    """An option of the topology has a value that cannot be used.

    Args:
        subject: The declared object, such as ``queue mail``.
        option: Its option.
        remedy: A value to write instead.
    """

    def __init__(self, subject: str, option: str, value: object, remedy: str) -> None:
        super().__init__(f"{subject}: {option} is {value!r:.200}; {remedy}")


class InvalidQueueName(SwitchyardError):
    """A queue name that cannot be part of a key, or that is the name of a key beside the queue's."""

    def __init__(self, queue_name: object) -> None:
        super().__init__(
            f"queue name {queue_name!r:.70} is not allowed; use 1 to 64 of a-z, 0-9, '_', '.' and '-', "
            "and none of the broker's own words (bodies, leases, token, notes, unique, swept, paused, refused)"
        )


class InvalidMessageId(SwitchyardError):
    """A message id that cannot be a key: it must be 1 to 200 printable ASCII characters without spaces."""

    def __init__(self, message_id: object) -> None:
        super().__init__(
            f"message id {message_id!r:.210} is not allowed; use 1 to 200 printable ASCII characters without spaces, "
            "for example a UUID"
        )


class PayloadTooLarge(SwitchyardError):
    """A message that is longer than a queue carries. Nothing was sent.

    Args:
        actor_name: Whom it was for.
        size_bytes: What its body has, or at the least would have.
        limit_bytes: What a body may have.
    """

    def __init__(self, actor_name: str, size_bytes: int, limit_bytes: int) -> None:
        self.actor_name, self.size_bytes, self.limit_bytes = actor_name, size_bytes, limit_bytes
        super().__init__(
            f"actor {actor_name}: message has {size_bytes} bytes or more of at most {limit_bytes}, it was not sent; "
            "store what is large, and send its name"
        )


class UnencodablePayload(SwitchyardError, ValueError):
    """A message that would not arrive as it was sent. Nothing was sent.

    Args:
        actor_name: Whom it was for.
        path: Where the value is: ``args[0]['due']``.
        fact: What is wrong with it.
    """

    def __init__(self, actor_name: str, path: str, fact: str) -> None:
        self.actor_name, self.path, self.fact = actor_name, path, fact
        super().__init__(
            f"actor {actor_name}: {path or 'the message'} {fact}; "
            "send text, finite numbers, true, false, null, lists, and dicts with text as keys"
        )


class UnreadablePayload(SwitchyardError, ValueError):
    """Bytes that are no strict JSON object.

    Args:
        path: Where it goes wrong: ``args[0]['due']``, ``byte 12``, ``character 7``; empty for all of it.
        fact: What is wrong there.
    """

    def __init__(self, path: str, fact: str) -> None:
        self.path, self.fact = path, fact
        super().__init__(f"{path or 'the body'} {fact}; see what enqueued it")
