"""One call for one trouble: dead letters, and a finding about the failures that they come from."""

from __future__ import annotations

import re
from collections.abc import Collection

from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.silences import UNRESOLVED

# A host in the text of an error.
_HOST = re.compile(r"(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+(?::\d+)?|localhost(?::\d+)?")


def sent_as_letters(actor: str, channels: Collection[str]) -> bool:
    """Return whether each of some channels was sent dead letters of an actor, and their alert is unresolved.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    sent = Delivery.objects.filter(channel__in=channels, state=Delivery.State.SENT, alert__state__in=UNRESOLVED)
    sent = sent.filter(alert__kind="dead_letter", alert__actor=actor[:255])
    return bool(channels) and set(channels) == set(sent.values_list("channel", flat=True))


def sent_as_finding(letters: Alert, channel: str) -> bool:
    """Return whether a channel was sent a lasting finding that names the actor of letters and their error or host.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    sent = Delivery.objects.filter(channel=channel, state=Delivery.State.SENT, alert__state__in=UNRESOLVED)
    texts = sent.filter(alert__kind="finding").values_list("alert__title", "alert__sample").distinct()
    lines = [line for text in texts for line in "\n".join(text).splitlines() if _names(line, letters.actor)]
    errors = [letters.title.rpartition(": ")[2], *_HOST.findall(letters.sample)]
    return any(_names(line, error) for line in lines for error in errors)


def _names(line: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", line) is not None
