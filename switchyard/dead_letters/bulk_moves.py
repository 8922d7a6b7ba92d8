"""Requeue and discard of all dead letters that match a filter, as bulk acts.

A step claims its rows, as an act on one letter does; ``reconcile`` leaves claims of bulk acts to their job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlencode

from django.db.models import Count, Max, Min, Q, QuerySet
from django.urls import reverse
from django.utils import timezone

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Moved
from switchyard.bulk.kinds import Item, Kind, KindTexts, NoRoom, Taken
from switchyard.bulk.models import BulkAct
from switchyard.console.formatting import between
from switchyard.dead_letters import letter_filter
from switchyard.dead_letters.actions import keep
from switchyard.dead_letters.confirmation import INSTEAD
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter
from switchyard.dead_letters.projection import GONE, LONGEST_HISTORY, history_entry

REASONS: dict[Moved, str] = {
    "gone": "no longer in the broker's dead list",
    "newer": "died again meanwhile",
    "unread": "cannot be read or sent by this release",
    "full": "its queue was full when the act was stopped",
}
LIST = "switchyard-letters"
TEXTS = {
    "requeue": KindTexts(
        "Requeue", "dead letter", "dead letters", left="dead",
        effect="They run again from the first attempt. What was done before the failure may be done twice.",
        undo="Cancel the jobs while they wait. What fails again comes back as a dead letter.",
    ),
    "discard": KindTexts(
        "Discard", "dead letter", "dead letters", left="dead", destructive=True,
        effect="They will never run. The senders get no result and no notice.",
        undo="For 90 days: Dead letters, Discarded, Restore. Then the messages are erased.",
    ),
}  # fmt: skip


class BulkMove:
    """Requeue or discard of dead letters, oldest first."""

    def __init__(self, move: Literal["requeue", "discard"], state: DeadLetter.State) -> None:
        self.act, self.right = f"letter.{move}", f"switchyard_dead_letters.{move}_deadletter"
        self.texts, self._move, self._state = TEXTS[move], move, state

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the failures, the times and the queues."""
        rows = _unordered(act)
        causes = list(rows.values_list("exception", "actor").annotate(letters=Count("pk")).order_by("-letters")[:4])
        shown = ", ".join(f"{exception} in {actor} ({letters:,})" for exception, actor, letters in causes[:3])
        times = rows.aggregate(first=Min("died_at"), last=Max("died_at"))
        if times["first"] is None:
            return []
        return [
            ("Failures", shown + (" and others" if len(causes) > 3 else "")),
            ("Died", f"{between(times['first'], times['last'])}. Later ones stay."),
            ("Queues", ", ".join(rows.values_list("queue", flat=True).distinct().order_by("queue"))),
            ("Instead", INSTEAD[self._move]),
        ]

    def address(self, filter: dict[str, Any]) -> str:
        """Return the list of these letters, in any state."""
        known: dict[str, str] = {
            name: filter[name] for name in ("fingerprint", "queue", "actor", "reason") if name in filter
        }
        return f"{reverse(LIST)}?{urlencode({**known, 'state': 'all'})}"

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form."""
        return dict(letter_filter.check(filter))

    def count(self, act: BulkAct) -> int:
        """Return how many open letters match."""
        return _unordered(act).count()

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Claim the next letters. Those that a person has claimed are left to that person."""
        rows = _letters(act)
        if act.cursor.get("after"):
            died_at, pk = datetime.fromisoformat(act.cursor["after"][0]), act.cursor["after"][1]
            rows = rows.filter(Q(died_at__gt=died_at) | Q(died_at=died_at, pk__gt=pk), died_at__gte=died_at)
        chosen = list(rows.select_for_update().only("pk", "message_id", "queue", "died_at", "claim_token")[:limit])
        if not chosen:
            return Taken([], act.cursor, more=False)
        free = [row for row in chosen if not row.claim_token]
        claim = {
            "claim_token": _token(act), "claim_act": self._move, "claim_by": act.who, "claim_note": act.reason,
            "claim_at": timezone.now(),
        }  # fmt: skip
        DeadLetter.objects.filter(pk__in=[row.pk for row in free]).update(**claim)
        last = chosen[-1]
        return Taken(
            [[row.pk, row.message_id, row.queue, _milliseconds(row.died_at)] for row in free],
            {"after": [last.died_at.isoformat(), last.pk]},
            more=len(chosen) == limit,
            skips={"another act has claimed it": len(chosen) - len(free)} if len(free) < len(chosen) else {},
        )

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Move the letters in the broker. What an interrupted step has moved counts as moved.

        Raises:
            NoRoom: a queue is full; the step is repeated.
        """
        transport = facilities().transport
        by_queue: dict[str, dict[str, int]] = defaultdict(dict)
        for _, message_id, queue, died_at in items:
            by_queue[queue][message_id] = died_at
        answers: dict[str, Moved] = {}
        for queue, letters in by_queue.items():
            if self._move == "requeue":
                answers |= transport.requeue_many(queue, letters, nonce=act.nonce)
            else:
                answers |= transport.discard_many(queue, letters, nonce=act.nonce, keep=keep)
        if "full" in answers.values() and not BulkAct.objects.filter(pk=act.pk, stop_asked_at__isnull=False).exists():
            full = {item[2] for item in items if answers[item[1]] == "full"}
            raise NoRoom(", ".join(sorted(full)))
        moved = {"moved", "gone", "newer"} if repeated else {"moved"}
        return ["" if answers[item[1]] in moved else REASONS[answers[item[1]]] for item in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Record the moves in the rows that still have this act's claim; a later death has taken the others'."""
        now = timezone.now()
        results = {item[0]: answer for item, answer in zip(items, answers, strict=True)}
        rows = list(
            DeadLetter.objects.select_for_update().filter(pk__in=results, claim_token=_token(act)).only("history")
        )
        entry = history_entry(self._move, act.who, act.reason)
        missing = history_entry("missing", "", GONE)
        by_state: dict[str, list[int]] = defaultdict(list)
        changed = []
        for row in rows:
            answer = results[row.pk]
            if answer in ("", REASONS["gone"]):
                row.history = [*row.history, entry if not answer else missing][-LONGEST_HISTORY:]
                by_state[DeadLetter.State.MISSING if answer else self._state].append(row.pk)
                changed.append(row)
        DeadLetter.objects.bulk_update(changed, ("history",), batch_size=100)
        for state, ids in by_state.items():
            by = "" if state == DeadLetter.State.MISSING else act.who
            DeadLetter.objects.filter(pk__in=ids).update(state=state, state_at=now, state_by=by)
        free = {"claim_token": "", "claim_act": "", "claim_by": "", "claim_note": "", "claim_at": None}
        DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(**free)


REQUEUE: Final[Kind] = BulkMove("requeue", DeadLetter.State.REQUEUED)
DISCARD: Final[Kind] = BulkMove("discard", DeadLetter.State.DISCARDED)


def _letters(act: BulkAct) -> QuerySet[DeadLetter]:
    return letter_filter.matching(act.filter).filter(died_at__lte=act.created_at)


def _unordered(act: BulkAct) -> QuerySet[DeadLetter]:
    """Return the letters for what counts them all."""
    rows = _letters(act).order_by()
    # Without the states SQLite reads all open letters by their time, not those of the cause by its index.
    return rows.filter(state__in=OPEN_STATES) if "fingerprint" in act.filter else rows


def _token(act: BulkAct) -> str:
    return f"{BULK_CLAIM}{act.pk}"


def _milliseconds(moment: datetime) -> int:
    return round((moment - datetime_of(0)).total_seconds() * 1000)
