"""Check of RabbitMQ: it takes connections and confirms messages."""

import ssl
from collections.abc import Iterator

from switchyard.addons.rabbitmq import majority
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import GROUP

# Class of the client's error -> most likely cause; the others are a server that is away.
CAUSES = {
    "ProbableAuthenticationError": "It refuses user or password",
    "ProbableAccessDeniedError": "It has no virtual host of that name, or the user has no rights there",
    "gaierror": "The name of its host does not resolve",
    "SSLError": "It does not speak TLS on this port, or refuses ours",
    "IncompatibleProtocolError": "It does not speak AMQP without TLS on this port, or asks for a certificate of ours",
}
AWAY = (
    "It is down, or host or port of the address is wrong",
    "Check SWITCHYARD_BROKER_URL; on its host: rabbitmqctl status",
)
MINORITY = "Most of its nodes are away or cut off, or one that leads queues hangs"
OTHER_TYPE = "Queues keep the type that they were declared with; workers cannot fetch from one of another type"
NO_RIGHT = "Its user lacks a right that every pool needs: pools are ready, fetch nothing, and sends may fail"
RIGHT_REMEDY = "Give it that right: rabbitmqctl set_permissions, see docs/how-to/run-on-rabbitmq.md"
REJECTED = "RabbitMQ 4 rejects what comes back to its queue 20 times, unless a policy lifts that limit; or a worker did"
REJECTED_REMEDY = "Set the policy, then move them back: docs/how-to/run-on-rabbitmq.md, step 1 and 'Rejected messages'"
QUEUE_REMEDY = "Set SWITCHYARD_RABBITMQ_QUEUES to the type that it has, or delete that queue when it is empty"


def look_at_rabbitmq() -> Iterator[Finding]:
    """Connect to the RabbitMQ that takes the messages; the server beside it has checks of its own."""
    own, yard = switchyard_settings(), declared_yard()
    kind = own.place_options["queue_type"]
    try:
        took_ms, confirms, rejected = majority.ask(own.place_url, yard.keys.prefix, kind, yard.lanes)
    except BrokerUnavailable as error:
        yield _away(error)
        return
    except majority.RightMissing as error:
        yield GROUP.error("not_permitted", f"RabbitMQ refuses: {error.cause}", NO_RIGHT, RIGHT_REMEDY)
        return
    except BrokerRefused as error:
        yield GROUP.error("refuses", f"RabbitMQ refuses: {error.cause}", OTHER_TYPE, QUEUE_REMEDY)
        return
    yield GROUP.ok(f"RabbitMQ took a connection in {took_ms:.0f} ms; queues are {kind}")
    if rejected:
        queues = ", ".join(f"{count} in {name}" for name, count in rejected.items())
        yield GROUP.warning("rejected", f"RabbitMQ rejected messages: {queues}", REJECTED, REJECTED_REMEDY)
    if not confirms:
        refusal, remedy = majority.UNCONFIRMED
        yield GROUP.error("takes_no_work", f"RabbitMQ accepts no work: {refusal}", MINORITY, remedy)


def _away(error: BrokerUnavailable) -> Finding:
    """Return the finding for a RabbitMQ that takes no connection."""
    why = type(error.__cause__).__name__
    cause = CAUSES.get(why, "")
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        cause = f"Its certificate is refused: {error.__cause__.verify_message}"
    elif why == "IncompatibleProtocolError" and "SSL" in error.cause:
        cause = "It ended the connection over TLS, as one does that asks for a certificate of ours"
    remedy = f"{error.remedy[0].upper()}{error.remedy[1:]}"
    if not cause:
        cause, remedy = AWAY
    return GROUP.error("away", f"RabbitMQ does not take a connection ({why})", cause, remedy)
