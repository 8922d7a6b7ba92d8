"""Dead letters: a message that is given up moves to ``<queue>-dead``, which no worker consumes, and joins an alert."""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import Middleware
from dramatiq.results import Results

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Transport
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from switchyard.broker.stores.dead_lists import payload_of
from switchyard.broker.topology import Yard
from switchyard.loggers import get_logger
from switchyard.middleware.errors import MoveFailed
from switchyard.middleware.options import boolean_of, flag, rule_of_both
from switchyard.middleware.outcomes import Outcome, attempt, error_text, fingerprint, outcome_of, traceback_of
from switchyard.middleware.wait_for_broker import retry_until_available

log = get_logger(__name__)


class Alerts(Middleware):
    """Middleware that raises an alert for each dead letter, unless message or actor has the option ``alert=False``.

    Listed before :class:`switchyard.middleware.dead_letters.DeadLetters`, which sets ``dead_letter`` on the message.
    """

    option_rules: ClassVar = (rule_of_both("alert", flag),)
    actor_options = {"alert"}
    failures_only = True

    def __init__(self, *, groups: AlertGroups) -> None:
        self._groups = groups

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        letter = getattr(message, "dead_letter", None)
        if letter is None:
            return
        actor = broker.actors.get(message.actor_name)
        if not isinstance(letter, DeadLetter) or not boolean_of(message, actor, "alert", default=True):
            return
        try:
            self._groups.raise_(fact_of(letter))
        except Exception:
            log.exception("alert not raised", job_id=letter.id, fingerprint=letter.fingerprint)

    after_nack = after_process_message  # no worker could start it


def fact_of(letter: DeadLetter) -> AlertFact:
    """Return the facts of a dead letter for its alert; arguments are not among them."""
    attempts = f"{letter.attempts} attempt{'' if letter.attempts == 1 else 's'}"
    return AlertFact(
        fingerprint=letter.fingerprint, kind="dead_letter", title=f"{letter.actor} gave up: {letter.exception}",
        detail=f"{letter.reason} after {attempts} in {letter.queue}: {letter.error}"[:500],
        queue=letter.queue, actor=letter.actor, at=letter.died_at,
    )  # fmt: skip


TRACEBACK_CHARACTERS = 20_000
ERROR_CHARACTERS = 2_000


class DeadLetters(Middleware):
    """Middleware that moves messages to the dead list: with the outcome ``dead``, or rejected by Dramatiq.

    ``on_dead`` is called with each dead letter after it is stored; exceptions are logged, the letter stays.
    """

    failures_only = True

    def __init__(
        self, *, yard: Yard, transport: Transport, on_dead: tuple[Callable[[DeadLetter], None], ...] = ()
    ) -> None:
        self._yard = yard
        self._transport = transport
        self.on_dead = on_dead

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        outcome = outcome_of(message, exception)
        if outcome.kind != "dead":
            return
        try:
            self._dead_letter(message, msgspec.structs.replace(outcome, exception=outcome.exception or exception))
        except Exception:
            log.exception("not dead-lettered, left to the broker's own dead letters", job_id=message.message_id)
            message.fail()
        store_failure(broker, message)

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Move a message that Dramatiq rejects before it reaches a worker thread to its dead list.

        Raises:
            MoveFailed: the message stays unacknowledged, and is delivered again when its worker is gone.
        """
        if getattr(message, "dead_lettered", False) or outcome_of(message, message._exception).kind == "deferred":
            return
        error = message._exception or ActorNotFound(message.actor_name)
        try:
            self._dead_letter(message, Outcome("dead", "permanent", exception=error))
        except Exception as cause:
            raise MoveFailed(
                f"message {message.message_id} of {message.actor_name}: not dead-lettered: {cause!r}"
            ) from cause

    def _dead_letter(self, message: MessageProxy, outcome: Outcome) -> None:
        letter = self._letter(message, outcome)
        retry_until_available(message, "dead letter", self._transport.dead_letter, message, letter)
        message.dead_lettered = True  # type: ignore[attr-defined]
        message.dead_letter = letter  # type: ignore[attr-defined]
        for tell in self.on_dead:
            try:
                tell(letter)
            except Exception:
                log.exception("dead letter not mirrored yet", job_id=letter.id)

    def _letter(self, message: MessageProxy, outcome: Outcome) -> DeadLetter:
        cause = outcome.exception or RuntimeError("no exception was recorded")
        started = getattr(message, "started_ms", None)
        died_at = now_ms()
        return DeadLetter(
            id=message.message_id, queue=self._yard.queue_of(message.queue_name).name, actor=message.actor_name,
            message=payload_of(message), reason=outcome.reason, exception=type(cause).__name__,
            error=error_text(cause, outcome.refusal)[:ERROR_CHARACTERS],
            traceback=traceback_of(cause)[-TRACEBACK_CHARACTERS:], attempts=attempt(message) - (started is None),
            enqueued_at=int(message.options.get("enqueued_at", message.message_timestamp)), died_at=died_at,
            duration_ms=max(died_at - started, 0) if started is not None else 0,
            fingerprint=fingerprint(message.actor_name, cause),
        )  # fmt: skip


def store_failure(broker: Broker, message: MessageProxy) -> None:
    """Have each ``Results`` store the exception of a message, as it does for one that Dramatiq rejects."""
    stores = [entry for entry in broker.middleware if isinstance(entry, Results)]
    if not stores or message.failed:
        return
    message.failed = True
    try:
        for entry in stores:
            entry.after_nack(broker, message)
    finally:
        message.failed = False
