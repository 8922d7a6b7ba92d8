"""Alerts: one broker call adds each dead letter to an alert group; a group of a thousand sends a few messages.

This middleware sends no message, does not wait, and fails no job: ``switchyard/alerts`` reads the groups and sends
to channels.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from switchyard.loggers import get_logger
from switchyard.middleware.option_rules import boolean_of, flag, rule_of_both

log = get_logger(__name__)


class Alerts(Middleware):
    """Middleware that raises an alert for each dead letter, unless message or actor has the option ``alert=False``.

    Listed before :class:`switchyard.middleware.dead_letters.DeadLetters`, which sets ``dead_letter`` on the message.
    """

    option_rules: ClassVar = (rule_of_both("alert", flag),)
    actor_options = {"alert"}

    def __init__(self, *, groups: AlertGroups) -> None:
        self._groups = groups

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._raise(broker, message)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Raise an alert for a message that no worker could start."""
        self._raise(broker, message)

    def _raise(self, broker: Broker, message: MessageProxy) -> None:
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


def fact_of(letter: DeadLetter) -> AlertFact:
    """Return the alert of a dead letter, without its arguments."""
    attempts = f"{letter.attempts} attempt{'' if letter.attempts == 1 else 's'}"
    return AlertFact(
        fingerprint=letter.fingerprint,
        kind="dead_letter",
        title=f"{letter.actor} gave up: {letter.exception}",
        detail=f"{letter.reason} after {attempts} in {letter.queue}: {letter.error}"[:500],
        queue=letter.queue,
        actor=letter.actor,
        at=letter.died_at,
    )
