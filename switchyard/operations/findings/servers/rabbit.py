"""Check of RabbitMQ: it takes connections and confirms messages."""

from __future__ import annotations

from collections.abc import Iterator

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.operations.findings.failures import rabbitmq_away
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers.causes import GROUP
from switchyard.operations.server_state import UNCONFIRMED

MINORITY = "Most of its nodes are away or cut off, or one that leads queues hangs"
OTHER_TYPE = "Queues keep the type that they were declared with; workers cannot fetch from one of another type"
NO_RIGHT = "Its user lacks a right that every pool needs: pools are ready, fetch nothing, and sends may fail"
RIGHT_REMEDY = "Give it that right: rabbitmqctl set_permissions, see docs/how-to/run-on-rabbitmq.md"
REJECTED = "RabbitMQ 4 rejects what comes back to its queue 20 times, unless a policy lifts that limit; or a worker did"
REJECTED_REMEDY = "Set the policy, then move them back: docs/how-to/run-on-rabbitmq.md, step 1 and 'Rejected messages'"
QUEUE_REMEDY = "Set SWITCHYARD_RABBITMQ_QUEUES to the type that it has, or delete that queue when it is empty"


def look_at_rabbitmq() -> Iterator[Finding]:
    """Connect to the RabbitMQ that takes the messages, where it does: :func:`look` checks the server beside it."""
    own = switchyard_settings()
    if not own.rabbitmq_url:
        return
    from switchyard.broker.rabbit import majority  # pika is installed where it is used

    try:
        yard = declared_yard()
        answer = majority.ask(own.rabbitmq_url, yard.keys.prefix, own.rabbitmq_queues, yard.lanes)
    except BrokerUnavailable as error:
        yield rabbitmq_away(GROUP, error)
        return
    except majority.RightMissing as error:
        yield GROUP.error("not_permitted", f"RabbitMQ refuses: {error.cause}", NO_RIGHT, RIGHT_REMEDY)
        return
    except BrokerRefused as error:
        yield GROUP.error("refuses", f"RabbitMQ refuses: {error.cause}", OTHER_TYPE, QUEUE_REMEDY)
        return
    yield GROUP.ok(f"RabbitMQ took a connection in {answer.took_ms:.0f} ms; queues are {own.rabbitmq_queues}")
    if answer.rejected:
        queues = ", ".join(f"{count} in {name}" for name, count in answer.rejected.items())
        yield GROUP.warning("rejected", f"RabbitMQ rejected messages: {queues}", REJECTED, REJECTED_REMEDY)
    if not answer.confirms:
        yield GROUP.error("takes_no_work", f"RabbitMQ accepts no work: {UNCONFIRMED[0]}", MINORITY, UNCONFIRMED[1])
