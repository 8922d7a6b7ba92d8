"""Acknowledgement of all open alerts that match a filter, as a bulk act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Count, QuerySet
from django.urls import reverse
from django.utils import timezone

from switchyard.alerts.models import Alert
from switchyard.bulk.kinds import Item, Kind, KindTexts, Taken
from switchyard.bulk.models import BulkAct

COLUMNS = ("kind", "severity", "queue", "actor", "fingerprint")


def of_list(query: Mapping[str, str]) -> dict[str, str] | None:
    """Return the filter of the list's address; ``None`` where it has conditions that a bulk act does not know."""
    given = {name.removesuffix("__exact"): value for name, value in query.items() if name not in ("o", "p", "all", "e")}
    if given.pop("state", "open") != "open" or not given.keys() <= set(COLUMNS):
        return None
    return given


def link_of_list(query: Mapping[str, str]) -> tuple[int, str]:
    """Return how many open alerts match the list's address, and the page that acknowledges them; 0 for none."""
    given = of_list(query)
    if given is None or any("\0" in value for value in given.values()):
        return 0, ""
    address = reverse("switchyard-bulk-begin", args=[BulkAcknowledge.act])
    return Alert.objects.filter(state=Alert.State.OPEN, **given).count(), f"{address}?{urlencode(given)}"


class BulkAcknowledge:
    """Acknowledge open alerts, oldest row first."""

    act, right = "alert.acknowledge", "switchyard_alerts.acknowledge_alert"
    texts = KindTexts(
        "Acknowledge", "alert", "alerts", left="open",
        effect="They are marked as known. They still resolve by themselves once their cause has ended.",
        undo="Not needed: it is only a mark.",
    )  # fmt: skip

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter without its empty fields."""
        given = {name: str(value) for name, value in filter.items() if value not in (None, "")}
        if wrong := next((name for name, value in given.items() if "\0" in value), None):
            raise ValueError(f"{wrong}: {given[wrong]!r:.40} has a NUL character, which no alert has")
        if wrong := next((name for name in given if name not in COLUMNS), None):
            raise ValueError(f"filter of alerts: no field {wrong!r}; known are {', '.join(COLUMNS)}")
        return given

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the severities and kinds."""
        found = _alerts(act).order_by().values_list("severity", "kind").annotate(count=Count("pk")).order_by("-count")
        return [("Alerts", ", ".join(f"{count:,} {severity} {kind}" for severity, kind, count in found[:4]) or "–")]

    def address(self, filter: dict[str, Any]) -> str:
        """Return the list of these alerts."""
        shown = {f"{name}__exact": filter[name] for name in ("kind", "severity", "queue") if name in filter}
        return f"{reverse('switchyard-alerts')}?{urlencode(shown)}"

    def count(self, act: BulkAct) -> int:
        """Return how many open alerts match."""
        return _alerts(act).count()

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return the next alerts by their number."""
        rows = _alerts(act).filter(pk__gt=act.cursor.get("after", 0)).order_by("pk")
        ids = list(rows.values_list("pk", flat=True)[:limit])
        return Taken([[pk] for pk in ids], {"after": ids[-1]} if ids else act.cursor, more=len(ids) == limit)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Return which are still open; the rows change with the step's commit."""
        still_open = Alert.objects.filter(pk__in=[item[0] for item in items], state=Alert.State.OPEN)
        still = set(still_open.values_list("pk", flat=True))
        return ["" if item[0] in still else "acknowledged or resolved before" for item in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Acknowledge the alerts."""
        ids = [item[0] for item, answer in zip(items, answers, strict=True) if not answer]
        values = {"state": Alert.State.ACKNOWLEDGED, "acknowledged_by": act.who, "acknowledged_at": timezone.now()}
        Alert.objects.filter(pk__in=ids, state=Alert.State.OPEN).update(**values)


ACKNOWLEDGE: Final[Kind] = BulkAcknowledge()


def _alerts(act: BulkAct) -> QuerySet[Alert]:
    return Alert.objects.filter(state=Alert.State.OPEN, first_at__lte=act.created_at, **act.filter)
