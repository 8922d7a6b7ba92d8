"""Requeue and discard of all dead letters that match a filter, as bulk acts.

A step claims its rows, as an act on one letter does; ``reconcile`` leaves claims of bulk acts to their job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Count, Max, Min, Q, QuerySet
from django.urls import reverse

from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import facilities
from switchyard.bulk.kinds import Item, Kind, KindTexts, NoRoom, Taken
from switchyard.bulk.models import BulkAct
from switchyard.console.formatting import between, time_ms
from switchyard.dead_letters import acts
from switchyard.dead_letters.act_views import INSTEAD
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter

COLUMNS = ("fingerprint", "queue", "actor", "reason", "exception", "state")
TIMES = {"died_since": "died_at__gte", "died_until": "died_at__lt"}
# Parameters of the list's address, by the filter's field.
LIST_NAMES = {"q": "search", "died_at__gte": "died_since", "died_at__lt": "died_until"}
LIST_ONLY = ("p", "o", "all", "e", "sort", "after")
# Each is five comparisons; SQLite takes at most 1,000 in one expression.
MOST_WORDS = 50
SEARCHED = ("message_id", "exception", "error", "actor", "fingerprint")


def check(filter: dict[str, Any]) -> dict[str, str]:
    """Return the filter with its empty fields left out, and the times of now in place of ``1h`` ago.

    Raises:
        ValueError: a field is not known, or has no valid value.
    """
    known = (*COLUMNS, *TIMES, "search")
    for name, value in filter.items():
        if "\0" in str(value):
            raise ValueError(f"{name}: {value!r:.40} has a NUL character, which no letter has")
    given = {name: str(value).strip() for name, value in filter.items() if value not in (None, "")}
    if wrong := next((name for name in given if name not in known), None):
        raise ValueError(f"filter of dead letters: no field {wrong!r}; known are {', '.join(known)}")
    if given.get("state", "new") not in OPEN_STATES:
        raise ValueError(f"state: {given['state']!r} is no state of an open letter; write new or acknowledged")
    given |= {name: _fixed(name, given[name]) for name in TIMES if name in given}
    if len(given.get("search", "").split()) > MOST_WORDS:
        raise ValueError(f"search: more than {MOST_WORDS} words; a part of the error's text is enough")
    return given


def of_list(query: Mapping[str, str]) -> dict[str, str] | None:
    """Return the filter of the list's address; ``None`` where it lists other letters than open ones."""
    given = _given(query)
    if given.get("state") == "open":
        del given["state"]
    try:
        return check(given)
    except ValueError:
        return None


def listed(query: Mapping[str, str]) -> QuerySet[DeadLetter]:
    """Return the letters that the list's address asks for: the open ones, those of a state, or all.

    Raises:
        ValueError: a field of the address is not known, or has no valid value.
    """
    given = _given(query)
    state = given.pop("state", "") or "open"
    rows = DeadLetter.objects.all()
    if state != "all":
        rows = rows.filter(is_open=1) if state == "open" else rows.filter(state=state.replace("\0", ""))
    return _narrowed(rows, check(given))


def matching(filter: dict[str, str]) -> QuerySet[DeadLetter]:
    """Return the open letters that match a filter that :func:`check` has returned, oldest first."""
    return _narrowed(DeadLetter.objects.filter(is_open=1).order_by("died_at", "id"), filter)


def _given(query: Mapping[str, str]) -> dict[str, str]:
    return {LIST_NAMES.get(name, name): value for name, value in query.items() if name not in LIST_ONLY}


def _narrowed(rows: QuerySet[DeadLetter], filter: dict[str, str]) -> QuerySet[DeadLetter]:
    rows = rows.filter(**{name: filter[name] for name in COLUMNS if name in filter})
    rows = rows.filter(
        **{field: datetime.fromisoformat(filter[name]) for name, field in TIMES.items() if name in filter}
    )
    for word in filter.get("search", "").split():
        wanted = Q()
        for column in SEARCHED:
            wanted |= Q(**{f"{column}__icontains": word})
        rows = rows.filter(wanted)
    return rows


def _fixed(name: str, text: str) -> str:
    return datetime_of(time_ms(name, text) or 0).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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

    def __init__(self, move: acts.MoveName) -> None:
        self.act, self.right = f"letter.{move}", f"switchyard_dead_letters.{move}_deadletter"
        self.texts, self._move = TEXTS[move], move

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
        return dict(check(filter))

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
        acts.claim(free, _token(act), self._move, by=act.who, reason=act.reason)
        last = chosen[-1]
        return Taken(
            [acts.item_of(row) for row in free],
            {"after": [last.died_at.isoformat(), last.pk]},
            more=len(chosen) == limit,
            skips={"another act has claimed it": len(chosen) - len(free)} if len(free) < len(chosen) else {},
        )

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Move the letters in the broker. What an interrupted step has moved counts as moved.

        Raises:
            NoRoom: a queue is full; the step is repeated.
        """
        answers = acts.move(self._move, items, nonce=act.nonce)
        if "full" in answers and not BulkAct.objects.filter(pk=act.pk, stop_asked_at__isnull=False).exists():
            full = {item[2] for item, answer in zip(items, answers, strict=True) if answer == "full"}
            raise NoRoom(", ".join(sorted(full)))
        moved = {"moved", "gone", "newer"} if repeated else {"moved"}
        return ["" if answer in moved else acts.REASONS[answer] for answer in answers]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Record the moves in the rows that still have this act's claim; a later death has taken the others'."""
        acts.settle(_token(act), {item[0]: answer for item, answer in zip(items, answers, strict=True)})


# Letters of the first steps of a canary; the others follow once all of these have ended well.
TRIALS: Final = (1, 10)


class BulkCanary(BulkMove):
    """Requeue of one dead letter, then of ten, then of all: the next step waits until the jobs before it have ended.

    A job that fails, even if it is to be retried, stops the act. Its cursor has the jobs that it waits for.
    """

    def __init__(self) -> None:
        super().__init__("requeue")
        self.texts = KindTexts(
            "Requeue 1, then 10, then all of", "dead letter", "dead letters", left="dead",
            effect="Each step waits until its jobs have ended; one that fails, or is to be retried, stops the act.",
            undo=TEXTS["requeue"].undo,
        )  # fmt: skip

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Claim the letters of the next step, once those of the last one have ended."""
        done, tried = act.cursor.get("trials", 0), act.cursor.get("tried", [])
        outcomes = {message_id: _outcome(message_id, queue) for message_id, queue in tried}
        for message_id, outcome in outcomes.items():
            if outcome not in ("succeeded", "unknown"):
                text = f"job {message_id} {outcome}; mend the cause, then requeue the others"
                return Taken([], {**act.cursor, "failed_job": message_id}, more=False, stopped=text)
        if "unknown" in outcomes.values():
            return Taken([], act.cursor, more=True, waits=True)
        if act.cursor.get("last"):
            return Taken([], act.cursor, more=False)
        taken = super().take(act, TRIALS[done] if done < len(TRIALS) else limit)
        tried = [[item[1], item[2]] for item in taken.items] if done < len(TRIALS) else []
        cursor = {**taken.cursor, "trials": done + 1, "tried": tried, "last": not taken.more}
        return Taken(taken.items, cursor, more=taken.more or bool(tried), skips=taken.skips)


def _outcome(message_id: str, queue: str) -> str:
    """Return ``succeeded``, ``unknown`` while a requeued job has not ended, or what became of it, as half a sentence.

    A message that is in no place has ended: it is looked for before its letter, which it may become meanwhile.
    """
    parts = facilities()
    message, record = parts.transport.find_message(queue, message_id), parts.records.read(message_id)
    if (message is not None and message.options.get("attempts", 0)) or (record and record.state == "retrying"):
        return "has failed and is to be retried"
    if message is not None:
        return "unknown"
    if parts.transport.find_dead_letter(queue, message_id) is not None:
        return "is dead again"
    if record is None or record.state == "succeeded":
        return "succeeded"
    return f"is {record.state}" if record.ended else "unknown"


CANARY: Final[Kind] = BulkCanary()
REQUEUE: Final[Kind] = BulkMove("requeue")
DISCARD: Final[Kind] = BulkMove("discard")


def _letters(act: BulkAct) -> QuerySet[DeadLetter]:
    return matching(act.filter).filter(died_at__lte=act.created_at)


def _unordered(act: BulkAct) -> QuerySet[DeadLetter]:
    """Return the letters for what counts them all."""
    rows = _letters(act).order_by()
    # Without the states SQLite reads all open letters by their time, not those of the cause by its index.
    return rows.filter(state__in=OPEN_STATES) if "fingerprint" in act.filter else rows


def _token(act: BulkAct) -> str:
    return f"{BULK_CLAIM}{act.pk}"
