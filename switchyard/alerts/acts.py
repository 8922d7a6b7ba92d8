"""Acts of people on alerts, each with its row in the audit log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Count, QuerySet
from django.urls import reverse
from django.utils import timezone

from switchyard.alerts import resolution, silences
from switchyard.alerts.channels import channels
from switchyard.alerts.models import Alert, Silence
from switchyard.alerts.notice import Notice
from switchyard.audit.services import Who, act
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken, plain_fields
from switchyard.bulk.models import BulkAct
from switchyard.database import storable
from switchyard.middleware.clock_comparison import compared_now

MOST_IDS = 100
LONGEST_REASON = 500


def apply(verb: str, alerts: Sequence[Alert], *, who: Who, reason: str = "") -> int:
    """Do ``acknowledge`` or ``resolve`` to alerts; return how many were open, or not resolved."""
    ids = [alert.pk for alert in alerts]
    target, detail = (str(ids[0]), {}) if len(ids) == 1 else ("", {"ids": ids[:MOST_IDS], "chosen": len(ids)})
    with act(f"alert.{verb}", who=who, target=target, reason=reason, detail=detail) as entry:
        entry.count = 0
        for pk in ids:
            if verb == "acknowledge":
                entry.count += silences.acknowledge(pk, by=who.signature)
            else:
                entry.count += resolution.resolve(pk, by=who.name)
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
        held = silences.in_force().filter(pk=silence_id)
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


COLUMNS = ("kind", "severity", "queue", "actor", "fingerprint")


def link_of_list(query: Mapping[str, str]) -> tuple[int, str]:
    """Return how many open alerts match the list's address, and the page that acknowledges them.

    0 and "" where the address has conditions that a bulk act does not know.
    """
    given = {name.removesuffix("__exact"): value for name, value in query.items() if name not in ("o", "p", "all", "e")}
    is_known = given.pop("state", "open") == "open" and given.keys() <= set(COLUMNS)
    if not is_known or any("\0" in value for value in given.values()):
        return 0, ""
    address = reverse("switchyard-bulk-begin", args=[BulkAcknowledge.act])
    return Alert.objects.filter(state=Alert.State.OPEN, **given).count(), f"{address}?{urlencode(given)}"


class BulkAcknowledge(Kind):
    """Acknowledge open alerts, oldest row first."""

    act, right = "alert.acknowledge", "switchyard_alerts.acknowledge_alert"
    texts = KindTexts(
        "Acknowledge", "alert", "alerts", left="open",
        effect="They are marked as known. They still resolve by themselves once their cause has ended.",
        undo="Not needed: it is only a mark.",
    )  # fmt: skip

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter without its empty fields."""
        return {**plain_fields(filter, COLUMNS, "alerts")}

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        found = _alerts(act).order_by().values_list("severity", "kind").annotate(count=Count("pk")).order_by("-count")
        return [("Alerts", ", ".join(f"{count:,} {severity} {kind}" for severity, kind, count in found[:4]) or "–")]

    def address(self, filter: dict[str, Any]) -> str:
        shown = {f"{name}__exact": filter[name] for name in ("kind", "severity", "queue") if name in filter}
        return f"{reverse('switchyard-alerts')}?{urlencode(shown)}"

    def count(self, act: BulkAct) -> int:
        return _alerts(act).count()

    def take(self, act: BulkAct, limit: int) -> Taken:
        rows = _alerts(act).filter(pk__gt=act.cursor.get("after", 0)).order_by("pk")
        ids = list(rows.values_list("pk", flat=True)[:limit])
        return Taken([[pk] for pk in ids], {"after": ids[-1]} if ids else act.cursor, more=len(ids) == limit)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Return which are still open; the rows change with the step's commit."""
        still_open = Alert.objects.filter(pk__in=[item[0] for item in items], state=Alert.State.OPEN)
        still = set(still_open.values_list("pk", flat=True))
        return ["" if item[0] in still else "acknowledged or resolved before" for item in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        ids = [item[0] for item, answer in zip(items, answers, strict=True) if not answer]
        silences.acknowledge(*ids, by=act.who)


ACKNOWLEDGE: Final[Kind] = BulkAcknowledge()


def _alerts(act: BulkAct) -> QuerySet[Alert]:
    return Alert.objects.filter(state=Alert.State.OPEN, first_at__lte=act.created_at, **act.filter)
