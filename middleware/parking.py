"""Parking: a message for code that this worker does not have is scheduled until a worker has it.

While new code is rolled out, messages for it meet old workers, and messages of old code meet new ones.
"""

import time
from typing import Any, Final

from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.interface import Transport
from switchyard.loggers import get_logger
from switchyard.middleware.arguments import call_of, calls_of, misfit
from switchyard.middleware.errors import ArgumentMismatch, UnknownActor
from switchyard.middleware.outcomes import Outcome, decide
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)

# A roll-out takes minutes. After that, a message for code that no worker has is a dead letter for a person to see.
GIVE_UP_MS: Final = 600_000
# Longest time that is counted, for a call that a worker knows but does not fetch. A larger value is not ours: restart.
LONGEST_MS: Final = 30 * 24 * 3_600_000
LOG_EVERY_S: Final = 60.0
UNKNOWN_HERE: Final = (
    "no worker of its queue has this actor; where its app is installed, restart the pools, which load code "
    f"when they start, and the job runs by itself; after {GIVE_UP_MS // 60_000} minutes it becomes a dead letter"
)
# Calls that are logged within that time: names in messages are any sender's.
MOST_LOGGED: Final = 1_000


class Parking(Middleware):
    """Middleware that parks messages whose actor is unknown here, or whose arguments do not fit; no actor is called.

    Neither an attempt nor a crash is counted. Workers that know the actor and its arguments take such messages as soon
    as they have room. After 10 minutes without such a worker a message becomes a dead letter (``permanent``). The time
    is the sum of its scheduled delays; workers' clocks are not compared (docs/decisions/0010-parking.md). Listed before
    :class:`switchyard.middleware.dead_letters.DeadLetters`, which skips parked messages.
    """

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport
        self._logged_s: dict[str, float] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        function = broker.actors[message.actor_name].fn  # Dramatiq rejects a message whose actor it does not know
        args, kwargs, calls = message.args, message.kwargs, calls_of(function)
        if (len(args), *kwargs) not in calls.seen and not calls.fit(len(args), kwargs.keys()):
            wrong = misfit(function, len(args), kwargs.keys())
            # One whose attempt ended at the hard limit takes the retry path first.
            if wrong is not None and not getattr(message, "cause", "").startswith("limit"):
                mismatch = ArgumentMismatch(message.actor_name, wrong, function)
                if self._park(message, str(mismatch)):
                    raise SkipMessage("parked until a worker has an actor that accepts its arguments")
                raise mismatch
        if "parked_ms" in message.options:
            retry_until_available(message, "a start", self._transport.unpark, message, call=call_of(message))

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Park a message that Dramatiq rejects because it knows no such actor."""
        if isinstance(message._exception, ActorNotFound):
            unknown = UnknownActor(message.actor_name)
            if not self._park(message, f"actor {message.actor_name}: {UNKNOWN_HERE}"):
                message.stuff_exception(unknown)

    def _park(self, message: MessageProxy, why: str) -> bool:
        call, parked_ms = call_of(message), message.options.get("parked_ms", 0)
        if type(parked_ms) is not int or not 0 <= parked_ms <= LONGEST_MS:
            parked_ms = 0
        names = {"job_id": message.message_id, "actor": message.actor_name, "queue": message.queue_name}
        if parked_ms >= GIVE_UP_MS:
            what, known = "whether it is parked for good", self._transport.known_lately
            if not retry_until_available(message, what, known, message, call=call, within_ms=GIVE_UP_MS):
                retry_until_available(message, "the end of parking", self._transport.unpark, message, call=call)
                return False
        options: dict[str, Any] = {"enqueued_at": message.options.get("enqueued_at", message.message_timestamp)}
        if getattr(message, "cause", "").startswith("limit"):
            options["attempts"] = int(message.options.get("attempts", 0)) + 1
        how: dict[str, Any] = {"call": call, "parked_ms": parked_ms, "options": options}
        delay_ms = retry_until_available(message, "parking", self._transport.park, message, **how)
        decide(message, Outcome("deferred", "parked", delay_ms=delay_ms))
        if self._is_news(call):
            log.warning("parked until a worker knows it (logged once a minute)", error=why, **names)
        return True

    def _is_news(self, call: str) -> bool:
        """Return whether a call was not logged within the last minute, and is to be logged now."""
        now_s = time.monotonic()
        if len(self._logged_s) >= MOST_LOGGED:
            self._logged_s = {call: at_s for call, at_s in self._logged_s.items() if now_s - at_s < LOG_EVERY_S}
        known_s = self._logged_s.get(call)
        if len(self._logged_s) >= MOST_LOGGED if known_s is None else now_s - known_s < LOG_EVERY_S:
            return False
        self._logged_s[call] = now_s
        return True
