"""A message that a consumer has leased, and the copies that are made of a message when it moves."""

from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.queue.operations import Lease, QueueOperations
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.dead_lists import payload_of


class HeldMessage(MessageProxy):
    """A leased message.

    Every attribute that a hook sets for most messages is declared here: a proxy looks an undeclared one up on the
    message inside, which is slower and raises where nothing set it. An instance has room for 30; one more costs it a
    dictionary. ``shut_down`` is set only on those that a shutdown interrupted.

    Attributes:
        crashes, cancel_requested, cause, lapses: See :class:`switchyard.broker.queue.operations.Grant`.
        body: The message as it came.
        has_credit: It counts against the prefetch credit of its worker.
        moved: It is in another place already; the worker's acknowledgement is not sent.
        runs_in: Ident of the thread or greenlet that runs it.
        adopted: It was parked, and leased because this worker knows its call.
        given_back: Its server has it again, before it started here.
        circuit: Its dependency's, and whether it is the probe; set by a hook, as are ``circuit_opened``, what opened,
            and ``called``, its dependency and whether that answered.
        sql_s: Its seconds in SQL; while a statement runs, less the monotonic time at which that began: below 0.
    """

    # Of the class: what is not set for each message costs none of them.
    crashes, cancel_requested, cause, body = 0, False, "", b""
    lapses: tuple[str, ...] | None = None
    moved = False
    given_back = adopted = False
    open = dead_lettered = False
    outcome: Any = None
    dead_letter: DeadLetter | None = None
    slot: int | None = None
    started_ms: int | None = None
    started_s: float | None = None
    weighed: tuple[int, int, int] | None = None
    log_lines: list[str] | None = None
    circuit: Any = None
    circuit_opened = ""
    called: Any = None
    sql_s = 0.0

    def __init__(self, message: Message[Any], lease: Lease, family: QueueOperations) -> None:
        super().__init__(message)
        # Read several times for each message, and slow to reach through the proxy.
        self.queue_name, self.actor_name = message.queue_name, message.actor_name
        self.args, self.kwargs, self.options = message.args, message.kwargs, message.options
        self.message_id, self.message_timestamp = message.message_id, message.message_timestamp
        self.lease = lease
        self.family = family
        self.has_credit = True
        self.runs_in = 0


def moved_copy(message: Message[Any] | MessageProxy, lane: str, options: dict[str, Any]) -> Message[Any]:
    """Return a copy for a lane, with changed options, without the options that describe only its old place."""
    fields = payload_of(message)
    new = {"queue_name": lane, "args": tuple(fields["args"]), "options": {**fields["options"], **options}}
    return Message(**{**fields, **new})


def requeued_copy(
    dead_letter: DeadLetter, lane: str, arguments: tuple[list[Any], dict[str, Any]] | None = None
) -> Message[Any]:
    """Return the message of a dead letter, attempts reset to 0, generation one higher; perhaps with other arguments."""
    args, kwargs = arguments or (dead_letter.message["args"], dead_letter.message["kwargs"])
    message: Message[Any] = Message(**{**dead_letter.message, "args": tuple(args), "kwargs": kwargs})
    options = {"attempts": 0, "generation": int(message.options.get("generation", 0)) + 1, "enqueued_at": now_ms()}
    return moved_copy(message, lane, options)
