"""Reconciliation of rows and dead lists after crashes, in bounded steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import DataError
from django.utils import timezone

from switchyard.broker import clock
from switchyard.broker.clock import datetime_of
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.conf import declared_yard
from switchyard.database import delete_old
from switchyard.dead_letters.acts import CLAIM_S, settle_claim
from switchyard.dead_letters.models import BULK_CLAIM, OPEN_STATES, DeadLetter
from switchyard.dead_letters.projection import GONE, locked, project, set_state
from switchyard.loggers import get_logger

log = get_logger(__name__)

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
