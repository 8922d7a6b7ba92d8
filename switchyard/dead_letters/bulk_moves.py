"""Bulk acts on dead letters, all that match a filter or those that are ticked.

A step of a requeue or discard claims its rows, as an act on one letter does; ``reconcile`` leaves claims of bulk acts
to their job.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, Final
from urllib.parse import urlencode

import dramatiq
from django.db.models import Count, Max, Min, Q, QuerySet
from django.urls import reverse

from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.broker.stores.job_record import Job
from switchyard.bulk.kinds import Item, Kind, KindTexts, NoRoom, Taken, plain_fields
from switchyard.bulk.models import BulkAct
from switchyard.console.formatting import between, iso, time_ms
from switchyard.dead_letters import acts
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter
from switchyard.dead_letters.projection import UNCLAIMED, set_state
from switchyard.dead_letters.queries import behind

COLUMNS = ("fingerprint", "queue", "actor", "reason", "exception", "state")
TIMES = {"died_since": "died_at__gte", "died_until": "died_at__lt"}
# Field of the keys of ticked letters, and one key.
TICKED, KEY = "letter", re.compile("[0-9]{1,18}")
# Parameters of the list's address, by the filter's field.
LIST_NAMES = {"q": "search", "died_at__gte": "died_since", "died_at__lt": "died_until"}
LIST_ONLY = ("p", "o", "all", "e", "sort", "after", "export")
# Each is five comparisons; SQLite takes at most 1,000 in one expression.
MOST_WORDS = 50
SEARCHED = ("message_id", "exception", "error", "actor", "fingerprint")


def check(filter: dict[str, Any]) -> dict[str, str]:
    """Return the filter with its empty fields left out, and relative times such as ``1h`` made absolute.

    Fields may have the names that the list's address gives them. ``queue`` may name several with commas.

    Raises:
        ValueError: a field is not known, or has no valid value, or no letter is ticked.
    """
    known = (*COLUMNS, *TIMES, "search", TICKED)
    filter = {LIST_NAMES.get(name, name): value for name, value in filter.items()}
    given = plain_fields(filter, known, "dead letters")
    if TICKED in filter:
        keys = [key for key in str(filter[TICKED]).split(",") if key]
        if not keys:
            raise ValueError("letter: none was chosen; tick letters in the list, then press the button above them")
        if len(keys) > acts.MOST_AT_ONCE or not all(map(KEY.fullmatch, keys)):
            raise ValueError(f"letter: write the keys of at most {acts.MOST_AT_ONCE:,} letters, or a filter of them")
        given[TICKED] = ",".join(keys)
    if given.get("state", "new") not in OPEN_STATES:
        raise ValueError(f"state: {given['state']!r} is not a state of an open letter; write new or acknowledged")
    given |= {name: iso(time_ms(name, given[name]) or 0, "milliseconds") for name in TIMES if name in given}
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
    """Return the letters that the list's address selects: the open ones, those of a state, or all.

    Raises:
        ValueError: a field of the address is not known, or has no valid value.
    """
    given = _given(query)
    state = given.pop("state", "") or "open"
    rows = DeadLetter.objects.all()
    if state != "all":
        rows = rows.filter(is_open=1) if state == "open" else rows.filter(state=state.replace("\0", ""))
    return _narrowed(rows, check(given))


def matching(filter: dict[str, str], **of: Any) -> QuerySet[DeadLetter]:
    """Return the letters, open or ``of`` a state, that match a filter that :func:`check` has returned, oldest first."""
    return _narrowed(DeadLetter.objects.filter(**(of or {"is_open": 1})).order_by("died_at", "id"), filter)


def _given(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if name not in LIST_ONLY}


def _narrowed(rows: QuerySet[DeadLetter], filter: dict[str, str]) -> QuerySet[DeadLetter]:
    rows = rows.filter(**{name: filter[name] for name in COLUMNS if name in filter and name != "queue"})
    if "queue" in filter:
        rows = rows.filter(queue__in=filter["queue"].split(","))
    rows = rows.filter(
        **{field: datetime.fromisoformat(filter[name]) for name, field in TIMES.items() if name in filter}
    )
    if TICKED in filter:
        rows = rows.filter(pk__in=filter[TICKED].split(","))
    for word in filter.get("search", "").split():
        rows = rows.filter(reduce(or_, (Q(**{f"{column}__icontains": word}) for column in SEARCHED)))
    return rows


LIST = "switchyard-letters"
TEXTS = {
    "acknowledge": KindTexts(
        "Acknowledge", "dead letter", "dead letters", left="new",
        effect="Nothing moves: they stay where they are, marked as known.", undo="Not needed: it is only a mark.",
    ),
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
    "restore": KindTexts(
        "Restore", "discarded letter", "discarded letters", left="discarded",
        effect="They come back as new dead letters. Nothing runs before they are requeued.",
        undo="Discard them again.",
    ),
}  # fmt: skip
INSTEAD = {
    "discard": "Acknowledge: it moves nothing, and you decide later. Or requeue one, and see whether it fails again.",
    "requeue": "Edit and requeue a single letter, where its arguments are wrong.",
}
# State of the letters of the acts that are not on all open ones.
OF_STATE = {"acknowledge": DeadLetter.State.NEW, "restore": DeadLetter.State.DISCARDED}


class BulkMark(Kind):
    """Acknowledge or restore letters one by one, oldest first."""

    def __init__(self, name: acts.ActName) -> None:
        self.act, self.texts, self._name = f"letter.{name}", TEXTS[name], name
        self.right = acts.right_of(name)

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        """Return the failures, the times and the queues."""
        rows = self._unordered(act)
        causes = list(rows.values_list("exception", "actor").annotate(letters=Count("pk")).order_by("-letters")[:4])
        shown = ", ".join(f"{exception} in {actor} ({letters:,})" for exception, actor, letters in causes[:3])
        times = rows.aggregate(first=Min("died_at"), last=Max("died_at"))
        if times["first"] is None:
            return []
        instead = INSTEAD.get(self._name)
        return [
            ("Failures", shown + (" and others" if len(causes) > 3 else "")),
            ("Died", f"{between(times['first'], times['last'])}. Later ones stay."),
            ("Queues", ", ".join(rows.values_list("queue", flat=True).distinct().order_by("queue"))),
            *([("Instead", instead)] if instead else []),
        ]

    def address(self, filter: dict[str, Any]) -> str:
        """Return the list of these letters, in any state."""
        known = {name: filter[name] for name in ("fingerprint", "queue", "actor", "reason", TICKED) if name in filter}
        return f"{reverse(LIST)}?{urlencode({**known, 'state': 'all'})}"

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        return dict(check(filter))

    def count(self, act: BulkAct) -> int:
        return self._unordered(act).count()

    def queues(self, act: BulkAct) -> list[str] | None:
        """Return the queues of the letters that match; none can join them, as later ones stay."""
        return list(self._unordered(act).values_list("queue", flat=True).distinct())

    def take(self, act: BulkAct, limit: int) -> Taken:
        rows, cursor = _page(self._letters(act).select_for_update(), act, limit, "gt")
        return Taken([acts.item_of(row) for row in rows], cursor, more=len(rows) == limit)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Act on the letters; what an interrupted step has done counts as done."""
        rows = DeadLetter.objects.in_bulk([item[0] for item in items])
        done = {pk for pk, row in rows.items() if not acts.act_on(row, self._name, by=act.who, reason=act.reason)}
        return ["" if item[0] in done or repeated else "no longer in that state" for item in items]

    def _letters(self, act: BulkAct) -> QuerySet[DeadLetter]:
        state = OF_STATE.get(self._name)
        rows = matching(act.filter, **({} if state is None else {"state": state}))
        return rows.filter(died_at__lte=act.created_at)

    def _unordered(self, act: BulkAct) -> QuerySet[DeadLetter]:
        """Return the letters for what counts them all."""
        rows = self._letters(act).order_by()
        # Without the states SQLite reads all open letters by their time, not those of the cause by its index.
        is_cause = "fingerprint" in act.filter and self._name not in OF_STATE
        return rows.filter(state__in=OPEN_STATES) if is_cause else rows


def _page(rows: QuerySet[DeadLetter], act: BulkAct, limit: int, order: str) -> tuple[list[DeadLetter], dict[str, Any]]:
    """Return the next letters, by ``gt`` the later and by ``lt`` the earlier ones, and the cursor behind them."""
    if after := act.cursor.get("after"):
        rows = behind(rows, datetime.fromisoformat(after[0]), after[1], order)
    chosen = list(rows.only("pk", "message_id", "queue", "died_at", "claim_token")[:limit])
    return chosen, {"after": [chosen[-1].died_at.isoformat(), chosen[-1].pk]} if chosen else act.cursor


class BulkMove(BulkMark):
    """Requeue or discard letters by the hundreds."""

    _name: acts.MoveName

    def take(self, act: BulkAct, limit: int) -> Taken:
        rows, cursor = _page(self._letters(act).select_for_update(), act, limit, "gt")
        items, skips = self.claim(act, rows)
        return Taken(items, cursor, more=len(rows) == limit, skips=skips)

    def claim(self, act: BulkAct, rows: Sequence[DeadLetter]) -> tuple[list[Item], dict[str, int]]:
        """Claim locked letters; those that a person has claimed are left to that person, and skipped."""
        free = [row for row in rows if not row.claim_token]
        acts.claim(free, _token(act), self._name, by=act.who, reason=act.reason)
        claimed = len(rows) - len(free)
        return [acts.item_of(row) for row in free], {"another act has claimed it": claimed} if claimed else {}

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Move the letters in the broker; those of an interrupted step count as moved. ``NoRoom``: a queue is full."""
        answers = acts.move(self._name, items, nonce=act.nonce)
        if "full" in answers and not BulkAct.objects.filter(pk=act.pk, stop_asked_at__isnull=False).exists():
            full = {item[2] for item, answer in zip(items, answers, strict=True) if answer == "full"}
            raise NoRoom(", ".join(sorted(full)))
        moved = {"moved", "gone", "newer"} if repeated else {"moved"}
        return ["" if answer in moved else acts.REASONS[answer] for answer in answers]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Record the moves in the rows that still have this act's claim; a later death has taken the others'."""
        acts.settle(_token(act), {item[0]: answer for item, answer in zip(items, answers, strict=True)})


# Letters of the first steps of a rollout without a canary of its own.
TRIALS: Final = (1, 10)
# Share of failures above which it stops, and the jobs that are reckoned with at least: one of two is no half.
STOP_PERCENT, LEAST_ENDED = 10, 20
# Jobs that are watched at a time once the canary has ended well.
WATCHED: Final = 200
# Kinds of letters that are asked for their circuits.
MOST_ACTORS: Final = 20


class BulkCanary(BulkMove):
    """Requeue as a rollout: a canary first, whose jobs all have to end well, then the others at the act's rate.

    A job that fails, even if it is to be retried, stops the act while it is the canary's; of the others, a share of
    those that are watched does. While the circuit of what their actor calls is open, nothing is requeued. The cursor
    has the jobs that are watched and have not ended, and how many ended and failed.
    """

    def __init__(self) -> None:
        super().__init__("requeue")
        self.texts = KindTexts(
            "Roll out the requeue of", "dead letter", "dead letters", left="dead", rolls_out=True,
            taken_back_by="letter.take_back",
            effect="A canary first: one of its jobs that fails, or is to be retried, stops the act. Then the others.",
            undo="Take back what has not started: it is dead again. What fails comes back as a dead letter.",
        )  # fmt: skip

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Claim the letters of the next step, as far as the jobs of those before it allow it."""
        plan = act.plan or {}  # none in rows of the release before
        trials = (plan["canary"],) if "canary" in plan else TRIALS
        done = act.cursor.get("trials", 0)
        cursor = _watched(act.cursor)
        is_trial = not act.cursor.get("passed")
        percent, least = (0, 1) if is_trial else (plan.get("stop_percent", STOP_PERCENT), LEAST_ENDED)
        if cursor["failed"] * 100 > percent * max(cursor["ended"], least):
            text = f"job {cursor['failed_job']} {cursor['failure']}; mend the cause, then requeue the others"
            if not is_trial:
                text = f"{cursor['failed']} of {cursor['ended']} jobs that were watched have failed, the last: {text}"
            return Taken([], cursor, more=False, stopped=text)
        if cursor["tried"] and (is_trial or cursor.get("last")):
            return Taken([], cursor, more=True, waits=True)
        if cursor.get("last"):
            return Taken([], cursor, more=False)
        if circuit := _open_circuit(self._unordered(act)):
            return Taken([], {**cursor, "circuit": circuit}, more=True, waits=True)
        taken = super().take(act, trials[done] if done < len(trials) else limit)
        tried = [*cursor["tried"], *([item[1], item[2]] for item in taken.items)]
        if done >= len(trials):
            tried = tried[:WATCHED]
        cursor |= {**taken.cursor, "trials": done + 1, "tried": tried, "last": not taken.more, "circuit": ""}
        cursor["passed"] = done >= len(trials)
        return Taken(taken.items, cursor, more=taken.more or bool(tried), skips=taken.skips)


def _watched(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cursor with what has become of the jobs that are watched."""
    cursor = {"tried": [], "ended": 0, "failed": 0, **before}
    tried, cursor["tried"] = cursor["tried"], []
    records = facilities().records.read_many([message_id for message_id, _ in tried])
    for (message_id, queue), record in zip(tried, records, strict=True):
        outcome = _outcome(message_id, queue, record)
        if outcome == "unknown":
            cursor["tried"].append([message_id, queue])
            continue
        cursor["ended"] += 1
        if outcome != "succeeded":
            cursor["failed"] += 1
            cursor |= {"failed_job": message_id, "failure": outcome}
    return cursor


def _outcome(message_id: str, queue: str, record: Job | None) -> str:
    """Return ``succeeded``, ``unknown`` while a requeued job has not ended, or what became of it, as half a sentence.

    Without a record, a message that is in no place has ended: it is looked for before its letter, which it may become
    meanwhile.
    """
    if record is None:
        transport = facilities().transport
        message = transport.find_message(queue, message_id)
        if message is not None:
            return "has failed and is to be retried" if message.options.get("attempts", 0) else "unknown"
        return "succeeded" if transport.find_dead_letter(queue, message_id) is None else "is dead again"
    if record.state == "retrying" or (not record.ended and record.attempts > 1):
        return "has failed and is to be retried"
    if record.state == "dead":
        return "is dead again"
    return record.state if record.state == "succeeded" else f"is {record.state}" if record.ended else "unknown"


def _open_circuit(letters: QuerySet[DeadLetter]) -> str:
    """Return the dependency of an actor of some letters whose circuit is open; "" where none is."""
    broker = dramatiq.get_broker()
    found = letters.values_list("queue", "actor").distinct()[:MOST_ACTORS]
    if not isinstance(broker, RedisBroker):
        return ""
    for queue, actor in list(found):
        for pause in pauses_in([broker.lane(queue)[0]]) if queue in broker.queues else ():
            if pause.is_open and not pause.argument and pause.stops(actor):
                return pause.dependency
    return ""


class BulkTakeBack(Kind):
    """Return of what a rollout has requeued, and no worker has fetched since, to the dead lists: the last first."""

    act, right = "letter.take_back", "switchyard_dead_letters.requeue_deadletter"
    texts = KindTexts(
        "Take back", "requeued letter", "requeued letters", left="in their queues",
        effect="Those that no worker has fetched are dead letters again. What has started stays.",
        undo="Requeue them again.",
    )  # fmt: skip

    def facts(self, act: BulkAct) -> list[tuple[str, str]]:
        return [("Bulk act", str(act.filter["act"]))]

    def check(self, filter: dict[str, Any]) -> dict[str, Any]:
        """Return the filter in its stored form: the number of a rollout that has ended."""
        number = str(filter.get("act"))
        row = BulkAct.objects.filter(pk=number, kind="letter.canary").first() if number[:18].isdecimal() else None
        if set(filter) != {"act"} or row is None or row.unfinished:
            raise ValueError(f"act: {number!r:.40} is not a rollout that has ended; see manage.py switchyard bulk list")
        return {"act": row.pk}

    def count(self, act: BulkAct) -> int:
        """Return how many letters the rollout has requeued, at most."""
        return self._rows(act).count()

    def queues(self, act: BulkAct) -> list[str] | None:
        return list(self._rows(act).order_by().values_list("queue", flat=True).distinct())

    def take(self, act: BulkAct, limit: int) -> Taken:
        """Return the next letters; nobody else can change a requeued one but by its death."""
        rows, cursor = _page(self._rows(act).order_by("-died_at", "-pk"), act, limit, "lt")
        return Taken([acts.item_of(row) for row in rows], cursor, more=len(rows) == limit)

    def apply(self, act: BulkAct, items: Sequence[Item], *, repeated: bool) -> list[str]:
        """Take the messages out of their queues, into the dead lists; that of an interrupted step counts as well."""
        nonce = BulkAct(pk=act.filter["act"]).nonce
        by_queue: dict[str, list[Letter]] = {}
        for row in DeadLetter.objects.filter(pk__in=[item[0] for item in items]):
            # The reconciler opens rows of an interrupted step; a later death has another time.
            if acts.item_of(row) in items:
                by_queue.setdefault(row.queue, []).append(acts.letter_of(row))
        there: set[str] = set()
        for queue, letters in by_queue.items():
            there |= facilities().transport.take_back(queue, letters, nonce=nonce)
        return ["" if item[1] in there else "has started or moved" for item in items]

    def settle(self, act: BulkAct, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Open the rows of the letters that are dead again."""
        done = [item[0] for item, answer in zip(items, answers, strict=True) if not answer]
        rows = DeadLetter.objects.select_for_update().filter(pk__in=done, state=DeadLetter.State.REQUEUED)
        for row in rows:
            set_state(row, DeadLetter.State.NEW, "take back", act.who, act.reason)
            row.save(update_fields=("state", "state_at", "state_by", "history", *UNCLAIMED))

    @staticmethod
    def _rows(act: BulkAct) -> QuerySet[DeadLetter]:
        """Return the letters that the rollout may have requeued; the broker knows which of them it did."""
        of = BulkAct.objects.get(pk=act.filter["act"])
        rows = DeadLetter.objects.filter(state=DeadLetter.State.REQUEUED, state_at__gte=of.created_at)
        return _narrowed(rows, of.filter | {"state": "requeued"})


TAKE_BACK: Final[Kind] = BulkTakeBack()
CANARY: Final[Kind] = BulkCanary()
ACKNOWLEDGE: Final[Kind] = BulkMark("acknowledge")
RESTORE: Final[Kind] = BulkMark("restore")
REQUEUE: Final[Kind] = BulkMove("requeue")
DISCARD: Final[Kind] = BulkMove("discard")


def _token(act: BulkAct) -> str:
    return f"{BULK_CLAIM}{act.pk}"
