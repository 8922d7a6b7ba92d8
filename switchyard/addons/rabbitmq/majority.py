"""Check whether quorum queues confirm: a node that lost the majority still takes connections and counts its queues."""

import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from pika.exceptions import ChannelClosedByBroker

from switchyard.addons.rabbitmq.connections import (
    ACCESS_REFUSED,
    AWAY,
    NO_RIGHT,
    Publishers,
    RabbitQueues,
    answers_within,
    connect,
    disconnect,
    parameters_of,
    refuse_other_type,
    unavailable,
)
from switchyard.broker.errors import BrokerRefused

# Within the 2 s of /readyz. A new leader is elected within 0.5 s of the end of a node (3.10.8).
CONFIRMS_S: Final = 1.5
ASKED_S: Final = 1.9
# Each try after an error is a connection of its own.
PAUSE_S: Final = 0.2
NOT_FOUND: Final = 404
# Why a server without a majority accepts no work, and the remedy.
UNCONFIRMED: Final = (
    "its quorum queues confirm nothing, as when most nodes of RabbitMQ are away",
    "Start the nodes that are away: `rabbitmqctl cluster_status`, on a node that is left, names those that run. Work "
    "then resumes by itself: what waits and what was confirmed is not lost.",
)
# All of :func:`ask`, with time to close its connections.
TOGETHER_S: Final = 3.5


class RightMissing(BrokerRefused):
    """The server refuses its user something that every pool does."""


def confirms(publishers: Publishers, queues: RabbitQueues, *, within_s: float = CONFIRMS_S) -> bool:
    """Return whether quorum queues confirm, within a time; ``True`` for classic queues of a server that answers.

    Fetches from a queue of its own, which nothing is ever sent to. Most nodes have to agree on that, as on a publish:
    without them the fetch has no answer where the queue's leader is left, and fails where it is away. Tries again until
    the time is over, because the queue may be electing a leader.

    Raises:
        BrokerUnavailable: the server takes no connection, or does not answer on it.
        BrokerRefused: the server has a queue of that name with other arguments.
    """
    give_up_s, answers = time.monotonic() + within_s, False
    while True:
        try:
            with publishers.channel(within_s=max(give_up_s - time.monotonic(), 0.05)) as channel:
                channel.basic_qos(prefetch_count=0)  # answered by the node alone
                answers = True
                if queues.kind == "quorum":
                    empty = f"{queues.prefix}.EMPTY"  # no lane has capitals
                    channel.queue_declare(queue=empty, durable=True, arguments={"x-queue-type": "quorum"})
                    channel.basic_get(empty, auto_ack=True)
                return True
        except AWAY as error:
            if isinstance(error, ChannelClosedByBroker) and error.reply_code == ACCESS_REFUSED:
                return True  # the user has no right to that queue: nothing is known
            if time.monotonic() >= give_up_s:
                if answers:
                    return False
                raise unavailable("a check of its quorum queues", error, outcome="refused") from error
        time.sleep(PAUSE_S)


def ask(url: str, prefix: str, kind: str, lanes: Iterable[str] = ()) -> tuple[float, bool, dict[str, int]]:
    """Return the ms that a connection took, whether quorum queues confirm, and counts of rejected messages by queue.

    Has connections of its own. Declares the queues of ``lanes`` that exist: the server refuses those of another type.
    Lanes that are not reached within 3.5 s are left out: all three together stay within the 4 s that the doctor gives a
    server that answers.

    Raises:
        BrokerUnavailable, BrokerRefused: as :func:`confirms`, the latter also for a queue of a lane.
        RightMissing: the user may not do what pools do.
    """
    parameters = parameters_of(url)
    parameters.socket_timeout = parameters.stack_timeout = ASKED_S
    began_s = time.monotonic()
    connection = connect(parameters)
    took_ms = (time.monotonic() - began_s) * 1000
    publishers = Publishers(parameters, answer_s=ASKED_S)
    try:
        queues = RabbitQueues(prefix, "classic" if kind == "classic" else "quorum")
        _check_rights(connection, queues)
        answer = confirms(publishers, queues, within_s=ASKED_S)
        rejected: dict[str, int] = {}
        left_s = began_s + TOGETHER_S - time.monotonic()
        if answer and left_s > 0:
            rejected = _declare_existing(connection, queues, lanes, within_s=left_s)
        return took_ms, answer, rejected
    finally:
        publishers.close()
        disconnect(connection)


def _check_rights(connection: Any, queues: RabbitQueues) -> None:
    """Declare and consume an exclusive probe queue, which the server deletes with the connection.

    Both need the rights to configure and to read a queue of the yard, and to write to the default exchange: a user who
    lacks one gets ``RightMissing``.
    """
    name, of_this_node = f"{queues.prefix}.RIGHTS-{uuid.uuid4()}", {"x-queue-type": "classic"}
    with suppress(*AWAY), answers_within(connection, ASKED_S):
        try:
            channel = connection.channel()
            channel.queue_declare(name, exclusive=True, arguments={**of_this_node, **queues.dead_lettering(name)})
            channel.basic_get(name, auto_ack=True)
            channel.close()
        except ChannelClosedByBroker as error:
            if error.reply_code == ACCESS_REFUSED:
                raise RightMissing(
                    "a declaration", f"{error.reply_code} {error.reply_text}", remedy=NO_RIGHT
                ) from error


def _declare_existing(
    connection: Any, queues: RabbitQueues, lanes: Iterable[str], *, within_s: float
) -> dict[str, int]:
    """Declare each lane's queue that exists, which changes nothing, so that the server compares its type.

    Returns queues with messages that the server rejected, with their counts. Leaves out a lane without the queue for
    rejected messages: a declaration would create it. Ends when the time is over, as at a queue that is electing a
    leader; the connection is not used again then. Raises ``BrokerRefused`` for a queue of another type.
    """
    found: dict[str, int] = {}
    with suppress(*AWAY), answers_within(connection, within_s):
        for lane in lanes:
            name, channel = queues.name(lane), connection.channel()
            try:
                channel.queue_declare(name, passive=True)
                rejected = queues.rejected(lane)
                if count := channel.queue_declare(rejected, passive=True).method.message_count:
                    found[rejected] = count
                queues.declare(channel, lane, name)
                channel.close()
            except ChannelClosedByBroker as error:  # the next lane has a channel of its own
                refuse_other_type(error)
                if error.reply_code != NOT_FOUND:
                    break
    return found
