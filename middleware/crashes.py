"""Crashes: a message that may crash its worker runs isolated, in the end it is a dead letter; and lost leases."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, MiddlewareError, SkipMessage, TimeLimitExceeded

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import SwitchyardError
from switchyard.broker.interface import Transport
from switchyard.loggers import get_logger
from switchyard.middleware.outcomes import Outcome, decide, fingerprint_of
from switchyard.middleware.redaction import redacted, without_arguments
from switchyard.middleware.wait_for_broker import retry_until_available


class LostLeases(Middleware):
    """Middleware that skips a message whose owner lost its lease after the fetch: another worker has the message.

    For workers that renew their own leases, such as ``rundramatiq``, and where a message belongs to a connection.
    """

    def __init__(self) -> None:
        self._lost: set[str] = set()

    def after_lose_lease(self, broker: Broker, owner: str) -> None:
        """Remember an owner whose lease is lost. Its name is never used again."""
        self._lost.add(owner)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Skip a message whose lease is lost, or that was returned because it waited too long for a thread."""
        if getattr(message, "given_back", False) or (self._lost and message.lease.owner in self._lost):
            message.moved = True  # type: ignore[attr-defined]
            decide(message, Outcome("deferred", "lease"))
            raise SkipMessage("its lease was lost before it started")


log = get_logger(__name__)

# As a supervisor writes it.
LIMIT = re.compile(r"limit of (\d[\d.]{0,9}) s")
MOST_CRASHES = 3
MOST_LAPSES = 5


class Poison(SwitchyardError, MiddlewareError):
    """A message that crashed its worker three times within 72 hours.

    ``cause`` is that of the last crash, and on further lines the worker's last log lines; ``arguments`` a fingerprint.
    """

    def __init__(self, actor_name: str, crashes: int, cause: str, *, arguments: str) -> None:
        cause, _, lines = cause.partition("\n")
        super().__init__(
            f"actor {actor_name}: this message took its worker down {crashes} times, last {cause or 'unseen'}; "
            "requeue it when the cause is mended"
        )
        self.add_note(f"\nActor: {actor_name}\nFingerprint of its arguments: {arguments}")
        self.add_note(f"Its worker ended: {cause or 'nobody saw how'}")
        self.add_note(f"The worker's last log lines:\n{lines}" if lines else "The worker's log: nothing was kept")


class SuspectedPoison(SwitchyardError, MiddlewareError):
    """A message that ran alone when all processes of its pool ended, five times (``<ms>@<host>``) within 72 hours."""

    def __init__(self, actor_name: str, lapses: Sequence[str]) -> None:
        hosts = list(dict.fromkeys(lapse.partition("@")[2] for lapse in lapses))
        super().__init__(
            f"actor {actor_name}: {len(lapses)} times its pool's supervisor and children ended while this message ran "
            f"alone, on {', '.join(hosts)}; look there for a container that was killed for its memory, and requeue it "
            "when the cause is mended"
        )
        self.add_note("\n" + "\n".join(map(_told, lapses)))


def _told(lapse: str) -> str:
    ended_ms, _, host = lapse.partition("@")
    at = datetime.fromtimestamp(int(ended_ms) / 1000, UTC)
    return f"Its lease was found expired at {at:%Y-%m-%d %H:%M:%S} UTC, on host {host}"


class HardLimitExceeded(SwitchyardError, MiddlewareError, TimeLimitExceeded):
    """The worker that ran a message was killed, because the message ran past its queue's hard limit."""

    def __init__(self, actor_name: str, cause: str) -> None:
        super().__init__(f"actor {actor_name}: its worker was killed at the hard {cause}; a soft limit did not end it")


class Crashes(Middleware):
    """Middleware that isolates or refuses a message whose last worker crashed, before it runs again.

    A message that was killed at its hard limit has failed and takes the retry path. Any other is isolated: it runs in a
    worker with a single slot, where a crash affects no other message. After the third it is a dead letter (``poison``).

    Where supervisor and worker ended together, the cause may be the machine, a deploy, or one of the messages that ran.
    These run only where the pool runs nothing else; when that pool has ended as well for the fifth time, the message is
    a dead letter (``suspected_poison``).

    One that was parked runs where it was adopted, beside others: workers of other code may be the first to fetch it
    from the isolated lane, each time, and would park it again.
    """

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Start a message, isolate it, or refuse it by ``HardLimitExceeded``, ``Poison`` or ``SuspectedPoison``."""
        crashes, cause = getattr(message, "crashes", 0), getattr(message, "cause", "")
        if not crashes and not cause:
            return
        lapses: Sequence[str] | None = getattr(message, "lapses", None)
        if cause.startswith("limit"):
            # The run that was killed lasted for its limit; when it began is not known.
            limit = LIMIT.match(cause)
            message.started_ms = now_ms() - int(float(limit[1]) * 1_000 if limit else 0)  # type: ignore[attr-defined]
            raise HardLimitExceeded(message.actor_name, cause)
        if crashes >= MOST_CRASHES:
            message.started_ms = now_ms()  # type: ignore[attr-defined]
            raise self._poison(broker, message, crashes, cause)
        if lapses is not None and len(lapses) >= MOST_LAPSES:
            message.started_ms = now_ms()  # type: ignore[attr-defined]
            raise SuspectedPoison(message.actor_name, lapses)
        if getattr(broker, "slots", 1) == 1 if lapses is None else getattr(broker, "runs_suspects", True):
            return
        if getattr(message, "adopted", False):
            return
        if retry_until_available(message, "isolation", self._transport.isolate, message):
            ending = cause.partition("\n")[0]
            log.info("runs alone", job_id=message.message_id, actor=message.actor_name, crashes=crashes, cause=ending)
            decide(message, Outcome("deferred", "alone"))
            raise SkipMessage("moved to the isolated lane: it may crash its worker or its container")

    def _poison(self, broker: Broker, message: MessageProxy, crashes: int, cause: str) -> Poison:
        actor = broker.actors.get(message.actor_name)
        payload = {"args": list(message.args), "kwargs": dict(message.kwargs)}
        shown = without_arguments(actor, payload, cause)
        return Poison(message.actor_name, crashes, shown, arguments=fingerprint_of(redacted(actor, payload)))
