"""Acts of people on dead letters and quarantined messages. Each is safe to repeat and to interrupt.

A move, of one letter or of those in a step of a bulk act, takes three steps: ``claim`` the rows, ``move`` the letters
in the broker, ``settle`` the results in the rows. A claim older than ``CLAIM_S`` belongs to an interrupted move:
``settle_claim`` asks the broker whether its list still holds the letter. Rows and dead lists that a crash left apart
are reconciled in bounded steps.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db import DataError, transaction
from django.utils import timezone

from switchyard.audit.services import Who, act
from switchyard.broker import clock
from switchyard.broker.clock import EPOCH, datetime_of
from switchyard.broker.errors import ActRefused, BrokerError, NotFound, not_quarantined
from switchyard.broker.interface import Arguments, facilities
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.broker.shapes import Moved
from switchyard.broker.stores.dead_lists import decode_letter, encode_letter
from switchyard.bulk.kinds import Item
from switchyard.conf import declared_yard
from switchyard.database import delete_old, storable
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter
from switchyard.dead_letters.projection import GONE, UNCLAIMED, add_history, clear_claim, locked, project, set_state
from switchyard.dead_letters.queries import find
from switchyard.loggers import get_logger

log = get_logger(__name__)

CLAIM_S = 60
LONGEST_NOTE = 500
MOST_AT_ONCE = 1_000
# More ids make the row of an act larger than the page that shows it.
MOST_IDS = 100
# State after a move.
STATE_AFTER = {"requeue": DeadLetter.State.REQUEUED, "discard": DeadLetter.State.DISCARDED}
# Why a letter was not moved, by the broker's answer.
REASONS: dict[Moved, str] = {
    "gone": "no longer in the broker's dead list",
    "newer": "died again meanwhile",
    "unread": "cannot be read or sent by this release",
    "full": "its queue is full, requeue it later or raise max_depth in the topology",
}
MoveName = Literal["requeue", "discard"]
ActName = Literal["acknowledge", "requeue", "discard", "restore"]


def right_of(name: str) -> str:
    """Return the permission that an act needs; who may discard may restore."""
    return f"switchyard_dead_letters.{'discard' if name == 'restore' else name}_deadletter"


@dataclass(frozen=True, slots=True)
class BulkResult:
    """Ids of the messages that were moved, a sentence for each of the others, and why the call ended early, or ""."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    stopped: str = ""


def apply(
    name: ActName, letters: Sequence[DeadLetter | str], *, who: Who, reason: str = "", group: str = ""
) -> BulkResult:
    """Act on letters one by one, see ``act_on``. Stops at the first broker error; what is done stays done.

    Args:
        group: Fingerprint that all of them have, for the audit log; "" where they were chosen one by one.
    """
    by_id = {letter if isinstance(letter, str) else letter.message_id: letter for letter in letters}
    return _move_each(
        f"letter.{name}", list(by_id), lambda id_: act_on(by_id[id_], name, by=who.signature, reason=reason),
        who=who, reason=reason, group=group, queues=lambda: {find(letter).queue for letter in letters},
    )  # fmt: skip


def move_quarantined(name: MoveName, ids: Sequence[str], *, who: Who, reason: str = "") -> BulkResult:
    """Requeue or discard quarantined messages one by one. Stops at the first broker error; what is done stays done."""
    transport = facilities().transport
    move_from = transport.requeue_quarantined if name == "requeue" else transport.discard_quarantined
    queues = [queue.name for queue in declared_yard().queues]

    def move(message_id: str) -> str:
        for queue in queues:
            try:
                move_from(queue, message_id)
                return ""
            except NotFound:
                continue
        raise not_quarantined(", ".join(queues), message_id)

    return _move_each(f"quarantine.{name}", ids, move, who=who, reason=reason)


def note(letter: DeadLetter | str, *, who: Who, text: str) -> tuple[bool, str]:
    """Append a note of at most 500 characters to a letter's history; return whether it was written, and a sentence."""
    target = letter if isinstance(letter, str) else letter.message_id
    with (
        act("letter.note", who=who, target=target, reason=text, queues=lambda: [find(letter).queue]) as entry,
        locked(find(letter)) as row,
    ):
        entry.count = int(bool(text.strip()))
        if not entry.count:
            return False, "The note is empty; nothing was written."
        add_history(row, action="note", by=who.signature, text=text.strip()[:LONGEST_NOTE])
        row.save(update_fields=("history",))
    return True, f"Noted on {row}."


def _move_each(
    name: str, ids: Sequence[str], move: Callable[[str], str], *, who: Who, reason: str, group: str = "",
    queues: Callable[[], Iterable[str]] | None = None,
) -> BulkResult:  # fmt: skip
    """Move messages within one act; ``move`` returns why it did not, or ""."""
    done: list[str] = []
    skipped: list[str] = []
    stopped, target = "", group or (ids[0] if len(ids) == 1 else "")
    detail = {"group": group} if group else {} if target else {"ids": list(ids[:MOST_IDS]), "chosen": len(ids)}
    with act(name, who=who, target=target, reason=reason, detail=detail, queues=queues) as entry:
        if group and not ids:
            remedy = "see `manage.py switchyard deadletters list` for the open groups"
            raise NotFound(f"group {group!r}: no open dead letter has this fingerprint; {remedy}")
        entry.count = 0
        for message_id in ids:
            try:
                why = move(message_id)
            except (NotFound, ActRefused) as error:
                why = str(error)
            except BrokerError as error:
                stopped, entry.error = f"The broker did not answer: {error}", "BrokerError"
                break
            if why:
                skipped.append(why)
            else:
                done.append(message_id)
                entry.count = len(done)
        if skipped and not done and not stopped:
            entry.error = "nothing moved"
    return BulkResult(tuple(done), tuple(skipped), stopped)


def act_on(
    letter: DeadLetter | str, name: ActName, *, by: str, reason: str = "", arguments: Arguments | None = None
) -> str:
    """Act on one letter, without a row in the audit log; return why it was left as it is, or "".

    Requeued, it goes back to its queue with zero attempts. Discarded, it leaves the broker; its row stays for 90 days,
    in which it can be restored. Acknowledged, it is only marked as known.

    Args:
        arguments: To requeue with in place of the message's own; already checked.

    Raises:
        NotFound: no dead letter has that id.
        BrokerUnavailable: the broker did not answer. Of a move the row shows the result within a minute; a restore is
            to be called again.
    """
    row = find(letter)
    if name == "acknowledge":
        return _acknowledge(row, by, reason)
    return _restore(row, by, reason) if name == "restore" else _move(row, name, by, reason, arguments)


def _acknowledge(row: DeadLetter, by: str, reason: str) -> str:
    with locked(row) as now:
        if now.state != DeadLetter.State.NEW:
            return _already(now)
        set_state(now, DeadLetter.State.ACKNOWLEDGED, "acknowledge", by, reason)
        now.save()
    return ""


def item_of(row: DeadLetter) -> Item:
    """Return what ``move`` needs to know of a claimed row, as a JSON value."""
    return [row.pk, row.message_id, row.queue, round((row.died_at - EPOCH).total_seconds() * 1000)]


def letter_of(row: DeadLetter) -> Letter:
    """Return a letter from its row, without the message: rows keep that for display only."""
    enqueued_at, died_at = (round((at - EPOCH).total_seconds() * 1000) for at in (row.enqueued_at, row.died_at))
    return Letter(
        row.message_id, row.queue, row.actor, {}, row.reason, row.exception, row.error, row.traceback, row.attempts,
        enqueued_at, died_at, row.duration_ms, row.fingerprint,
    )  # fmt: skip


def claim(rows: Sequence[DeadLetter], token: str, name: MoveName, *, by: str, reason: str) -> None:
    """Claim rows for a move, within the transaction that holds their locks."""
    values = {"claim_token": token, "claim_act": name, "claim_by": by, "claim_note": storable(reason)[:500]}
    DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(**values, claim_at=clock.utc_now())


def move(name: MoveName, items: Sequence[Item], *, nonce: str, arguments: Arguments | None = None) -> list[Moved]:
    """Move claimed letters in the broker, and return what became of each; with one nonce it moves none twice."""
    transport = facilities().transport
    by_queue: dict[str, dict[str, int]] = defaultdict(dict)
    for _, message_id, queue, died_at in items:
        by_queue[queue][message_id] = died_at
    answers: dict[str, Moved] = {}
    for queue, letters in by_queue.items():
        if name == "requeue":
            answers |= transport.requeue(queue, letters, nonce=nonce, arguments=arguments)
        else:
            answers |= transport.discard(queue, letters, nonce=nonce, keep=_keep)
    return [answers[item[1]] for item in items]


def _keep(letters: Sequence[Letter]) -> None:
    """Write whole letters into their rows, before the broker drops them, so that they can be restored."""
    with transaction.atomic():
        for letter in letters:
            DeadLetter.objects.filter(message_id=letter.id).update(kept=encode_letter(letter))


def settle(token: str, reasons: Mapping[int, str]) -> None:
    """Record why letters were not moved, "" for one that was, in their rows by their keys, and end the claim.

    A later death has taken a row from it.
    """
    with transaction.atomic():
        claimed = DeadLetter.objects.select_for_update().filter(pk__in=reasons, claim_token=token)
        rows = list(claimed.only("history", "claim_act", "claim_by", "claim_note"))
        changed: dict[tuple[str, str], list[DeadLetter]] = defaultdict(list)
        for row in rows:
            if not (why := reasons[row.pk]):
                add_history(row, action=row.claim_act, by=row.claim_by, text=row.claim_note)
                changed[STATE_AFTER[row.claim_act], row.claim_by].append(row)
            elif why == REASONS["gone"]:
                add_history(row, action="missing", by="", text=GONE)
                changed[DeadLetter.State.MISSING, ""].append(row)
        for (state, by), alike in changed.items():
            DeadLetter.objects.bulk_update(alike, ("history",), batch_size=100)
            ids = [row.pk for row in alike]
            DeadLetter.objects.filter(pk__in=ids).update(state=state, state_at=timezone.now(), state_by=by)
        DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(**UNCLAIMED)


def settle_claim(row: DeadLetter) -> bool:
    """Ask the broker whether an interrupted action moved the letter, and record the answer; return whether it did."""
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    if letter is not None and project(letter):
        return True
    with locked(row) as now:
        if not row.claim_token or now.claim_token != row.claim_token:
            return False
        if letter is None:
            note = f"{now.claim_note} (was interrupted)".strip()
            set_state(now, STATE_AFTER[now.claim_act], now.claim_act, now.claim_by, note)
            now.save()
            return True
        text = "was interrupted before the letter moved; nothing changed"
        add_history(now, action=now.claim_act, by=now.claim_by, text=text)
        clear_claim(now)
        now.save()
    return False


def _move(row: DeadLetter, name: MoveName, by: str, reason: str, arguments: Arguments | None = None) -> str:
    token = uuid.uuid4().hex
    stale = row.claim_at is not None and row.claim_at < clock.utc_now() - timedelta(seconds=CLAIM_S)
    if stale and not row.claim_token.startswith(BULK_CLAIM):
        settle_claim(row)
    with locked(row) as now:
        if now.claim_token:
            return f"{now.claim_by} has begun to {now.claim_act} {now}; look again in a minute."
        if now.state not in OPEN_STATES:
            return _already(now)
        claim([now], token, name, by=by, reason=reason)
    row = now
    try:
        [answer] = move(name, [item_of(row)], nonce=token, arguments=arguments)
    except BrokerError as error:
        if error.outcome == "refused":
            settle(token, {row.pk: "refused"})
        raise
    settle(token, {row.pk: REASONS.get(answer, "")})
    if answer in REASONS:
        return f"{row} stays as it is: {REASONS[answer]}."
    log.info("dead letter moved", act=name, by=by, message_id=row.message_id, actor=row.actor, queue=row.queue)
    return ""


def _already(row: DeadLetter) -> str:
    by = f" by {row.state_by}" if row.state_by else ""
    label = DeadLetter.State(row.state).label.lower()
    return f"{row} is {label} already, since {row.state_at:%Y-%m-%d %H:%M:%S} UTC{by}."


def _restore(row: DeadLetter, by: str, reason: str) -> str:
    """Put a discarded letter back into its dead list, from where it can be requeued.

    A crash between broker and row leaves the letter in the list; the reconciler opens its row then.
    """
    if row.state != DeadLetter.State.DISCARDED:
        return _already(row)
    kept = decode_letter(row.queue, row.kept.encode()) if row.kept else None
    if kept is None:
        return f"{row} cannot be restored: it was discarded by a release that kept no copy."
    if not facilities().transport.restore(kept):
        return f"{row} cannot be restored: a message with its id is in {row.queue}."
    with locked(row) as now:
        if now.state == DeadLetter.State.DISCARDED:  # else the reconciler has found it
            now.kept = ""
            set_state(now, DeadLetter.State.NEW, "restore", by, reason)
            now.save()
    return ""


PAGE = 200
KEEP_DAYS = 90
# Cursor of the next call's walk over a long list. Another process starts at the newest entry and misses nothing.
_positions: dict[str, int] = {}


def reconcile_all(*, pages: int = 10) -> dict[str, int]:
    """Repair rows from the dead lists. Safe to repeat, and to run in two processes at once.

    Each call reads the newest page of every list, up to ``pages`` more pages of 200 letters from where the last call
    stopped, and up to ``pages`` × 200 open rows.

    Returns:
        Counts of rows: ``made`` or reset to new, ``settled`` after an interrupted move, ``missing`` in the lists, and
        ``pruned``, triaged over 90 days ago.

    Raises:
        BrokerUnavailable: the broker did not answer; rows are left as they are.
    """
    made = sum(_from_list(queue.name, pages) for queue in declared_yard().queues)
    report = {"made": made, "settled": _settle_stale(), "missing": _find_missing(pages), "pruned": _prune()}
    if any(report.values()):
        log.info("dead letters reconciled", **report)
    if report["missing"]:
        log.warning(
            "dead letters are gone from the broker: it was emptied, restored or made another; jobs that waited may be "
            "gone as well, see `manage.py switchyard deadletters list --state missing`",
            count=report["missing"],
        )
    return report


def _from_list(queue: str, pages: int) -> int:
    transport, place = facilities().transport, f"list {queue}"
    page = transport.dead_letters(queue, limit=PAGE)
    made = _project_page(page.items)
    cursor = None if page.cursor is None else _positions.get(place) or page.cursor
    for _ in range(pages):
        if cursor is not None:
            page = transport.dead_letters(queue, cursor=cursor, limit=PAGE)
            made += _project_page(page.items)
            cursor = page.cursor
    _positions[place] = cursor or 0
    return made


def _project_page(letters: Sequence[Letter]) -> int:
    page = {letter.id: letter for letter in letters}
    known = {row.message_id: row for row in DeadLetter.objects.filter(message_id__in=page)}
    made = 0
    for message_id, letter in page.items():
        row = known.get(message_id)
        if row is not None and row.state not in OPEN_STATES and not row.claim_token:
            made += _reopen(row)
        elif row is None or row.died_at < datetime_of(letter.died_at):
            try:
                made += project(letter)
            except (DataError, OverflowError) as error:  # an invalid letter, written by hand, must not block the others
                log.error("dead letter fits into no row, read it in the broker", message_id=letter.id, error=str(error))
    return made


def _reopen(row: DeadLetter) -> bool:
    # The page may be older than the row, so read the letter again.
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    note = f"was {row.state}, but the dead list still holds it"
    return letter is not None and (project(letter) or _set_if_same(row, DeadLetter.State.NEW, "reopened", note))


def _settle_stale() -> int:
    before = clock.utc_now() - timedelta(seconds=CLAIM_S)
    claimed = DeadLetter.objects.filter(claim_at__lt=before).exclude(claim_token="")
    stale = claimed.exclude(claim_token__startswith=BULK_CLAIM).order_by("claim_at")[:PAGE]
    names = {queue.name for queue in declared_yard().queues}
    rows = [row for row in stale if row.queue in names]
    for row in rows:
        settle_claim(row)
    return len(rows)


def _find_missing(pages: int) -> int:
    names = [queue.name for queue in declared_yard().queues]
    rows = DeadLetter.objects.filter(state__in=OPEN_STATES, claim_token="", queue__in=names).order_by("id")
    after = _positions.get("rows", 0)
    chunk = list(rows.filter(id__gt=after)[: PAGE * pages])
    _positions["rows"] = chunk[-1].pk if len(chunk) == PAGE * pages else 0
    transport = facilities().transport
    gone = [row for row in chunk if transport.find_dead_letter(row.queue, row.message_id) is None]
    return sum(_set_if_same(row, DeadLetter.State.MISSING, "missing", GONE) for row in gone)


def _set_if_same(row: DeadLetter, state: DeadLetter.State, action: str, note: str) -> bool:
    with locked(row) as now:
        if (now.state, now.state_at, now.died_at, now.claim_token) != (row.state, row.state_at, row.died_at, ""):
            return False
        set_state(now, state, action, "", note)
        now.save()
    return True


def _prune() -> int:
    before = timezone.now() - timedelta(days=KEEP_DAYS)
    old = DeadLetter.objects.exclude(state__in=OPEN_STATES).filter(state_at__lt=before).order_by("id")
    return delete_old(old, batches=1)
