"""Acts of people on alerts, each with its row in the audit log."""

import time
import uuid
from collections.abc import Sequence
from datetime import datetime

from django.utils import timezone

from switchyard.alerts import intake, notice
from switchyard.alerts.channels import channels
from switchyard.alerts.models import Alert, Silence
from switchyard.alerts.notice import Notice
from switchyard.audit.services import LONGEST_REASON, Who, act
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.database import storable
from switchyard.middleware.clock_comparison import compared_now

MOST_IDS = 100


def apply(verb: str, alerts: Sequence[Alert], *, who: Who, reason: str = "") -> int:
    """Do ``acknowledge`` or ``resolve`` to alerts; return how many were open, or not resolved."""
    ids = [alert.pk for alert in alerts]
    target, detail = (str(ids[0]), {}) if len(ids) == 1 else ("", {"ids": ids[:MOST_IDS], "chosen": len(ids)})
    with act(f"alert.{verb}", who=who, target=target, reason=reason, detail=detail) as entry:
        entry.count = notice.acknowledge(*ids, by=who.signature) if verb == "acknowledge" else 0
        for pk in ids if verb == "resolve" else ():  # each is committed, and counts where a later one fails
            entry.count += intake.resolve(pk, by=who.name)
        return entry.count


def silence(fingerprint: str, until: datetime, *, who: Who, reason: str) -> Silence:
    """Silence alerts of one fingerprint, or with "" every alert. Messages that wait to be sent are held back as well.

    Raises:
        ActRefused: there is no reason.
    """
    detail = {"until": until.isoformat(timespec="seconds")}
    with act("alert.silence", who=who, target=fingerprint, reason=reason, detail=detail) as entry:
        if not reason.strip():
            raise ActRefused("silence", "no reason is given; write why, for those who see the silence")
        made = Silence.objects.create(
            fingerprint=storable(fingerprint)[:128], until=until, reason=storable(reason.strip())[:LONGEST_REASON],
            created_by=who.name[:150],
        )  # fmt: skip
        entry.count, entry.detail = 1, detail | {"silence": made.pk}
        return made


def unsilence(silence_id: int, *, who: Who, reason: str = "") -> Silence | None:
    """End a silence before its time; ``None`` when there is none, or it is over already."""
    with act("alert.unsilence", who=who, target=str(silence_id), reason=reason) as entry:
        held = notice.in_force().filter(pk=silence_id)
        entry.count = held.update(ended_at=compared_now(), ended_by=who.name[:150])
        ended = Silence.objects.get(pk=silence_id) if entry.count else None
        entry.detail = {} if ended is None else {"fingerprint": ended.fingerprint}
        return ended


def send_test(name: str, *, who: Who) -> float:
    """Send a test message to one channel; return the seconds until it was accepted, at most 5.

    Raises:
        NotFound: SWITCHYARD_ALERT_URLS names no such channel.
        ChannelFailed: the channel did not accept it. It is not retried.
    """
    found = channels()
    if name not in found:
        raise NotFound(
            f"SWITCHYARD_ALERT_URLS has no channel {name!r}; it has {', '.join(found)}: reload the page of alerts, "
            "or see manage.py switchyard alerts channels"
        )
    now = timezone.now()
    alert = Alert(
        fingerprint="test", kind="test", severity="warning", first_at=now, last_at=now, title="Test of this channel",
        sample=f"{who.name} sent it to see that alerts arrive here. Nothing is wrong.",
    )  # fmt: skip
    with act("alert.test", who=who, target=name):
        began = time.monotonic()
        found[name].send(Notice(f"test-{uuid.uuid4()}", alert, count=1))
        return time.monotonic() - began
