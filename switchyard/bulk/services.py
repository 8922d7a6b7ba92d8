"""Start and stop of bulk acts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from switchyard.audit.services import Who, act, begin
from switchyard.broker.errors import NotFound
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import UNFINISHED, BulkAct
from switchyard.database_text import storable
from switchyard.loggers import get_logger
from switchyard.middleware.clock_comparison import compared_now
from switchyard.old_rows import delete_old

log = get_logger(__name__)

# Above this number a page or a command makes a bulk act of what it would otherwise do at once.
AT_ONCE = 100
# A step takes seconds at most: an act that is unfinished and untouched for so long has lost its job.
LOST_S = 120
RESUMED_AT_ONCE = 20
KEEP_DAYS = 90


def start(
    kind: str, filter: dict[str, Any], *, who: Who, reason: str = "", rate: int | None = None, form_id: str = ""
) -> BulkAct:  # fmt: skip
    """Start a bulk act on all that match a filter now, and return its row. A job does it in steps.

    Args:
        kind: Name of a registered kind, such as ``letter.requeue``.
        filter: What it is applied to; see the kind.
        rate: Items a second at most; ``None`` for as fast as it goes.
        form_id: Of the form that asks for it.

    Raises:
        IntegrityError: an act of this form has started.
        NotFound: no installed app registers the kind.
        ValueError: the filter is wrong, or the rate is below 1.
        BrokerUnavailable: the broker did not answer; the act starts within minutes, once it does.
    """
    chosen = kind_of(kind)
    stored = chosen.check(filter)
    if rate is not None and rate < 1:
        raise ValueError(f"rate: {rate} is below 1; give items a second, or leave it out")
    row = BulkAct(kind=kind, filter=stored, rate=rate, reason=storable(reason)[:500], who=who.name, via=who.via)
    row.created_at = row.touched_at = compared_now()
    row.form_id = form_id or None
    with act("bulk.start", who=who, reason=reason, detail={"kind": kind, "filter": stored, "rate": rate}) as entry:
        row.total = chosen.count(row)
        with transaction.atomic():
            row.save()
        entry.target, entry.count = f"bulk act {row.pk}", row.total
        row.audit_id = begin(chosen.act, who=who, target=entry.target, reason=reason, detail={"filter": stored})
        row.save(update_fields=("audit_id",))
    send(row)
    return row


def send(row: BulkAct, *, waits_for: str = "", delay_ms: int | None = None) -> None:
    """Enqueue the job that continues an act; a job that was enqueued for it before ends when it sees that.

    Args:
        waits_for: Why it continues only after ``delay_ms``, for people.
    """
    from switchyard.bulk.actors import run_bulk_act

    with transaction.atomic():
        now = BulkAct.objects.select_for_update().get(pk=row.pk)
        now.run += 1
        now.touched_at = compared_now()
        now.error = waits_for[:500] or now.error
        now.save(update_fields=("run", "touched_at", "error"))
    row.run = now.run
    run_bulk_act.send_with_options(args=(row.pk, now.run), delay=delay_ms)


def no_such_act(number: object) -> NotFound:
    """Return the error that no bulk act has this number."""
    return NotFound(f"bulk act {number}: there is none; see `manage.py switchyard bulk list`")


def stop(number: int, *, who: Who, reason: str = "") -> bool:
    """Stop a bulk act after the step that it is in; return ``False`` if it had ended, or was stopped, before.

    What it has done stays done.

    Raises:
        NotFound: no bulk act has this number.
    """
    with act("bulk.stop", who=who, target=f"bulk act {number}", reason=reason) as entry, transaction.atomic():
        row = BulkAct.objects.select_for_update().filter(pk=number).first()
        if row is None:
            raise no_such_act(number)
        if not row.unfinished or row.stop_asked_at is not None:
            entry.count = 0
            return False
        row.stop_asked_at, row.stop_by = timezone.now(), who.name
        row.save(update_fields=("stop_asked_at", "stop_by"))
        entry.count = 1
    return True


def resume_lost() -> int:
    """Enqueue the jobs of unfinished acts that nothing has touched for 2 minutes; return how many.

    The leading scheduler calls this function: a message may be lost with its server, or dead after many crashes.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    before = compared_now() - timedelta(seconds=LOST_S)
    lost = list(BulkAct.objects.filter(state__in=UNFINISHED, touched_at__lt=before).order_by("id")[:RESUMED_AT_ONCE])
    for row in lost:
        log.warning("bulk act resumed: its job was lost", bulk_act=row.pk, kind=row.kind)
        send(row)
    return len(lost)


def delete_old_rows() -> int:
    """Delete acts that ended over 90 days ago, as many as ``delete_old`` does; return the count.

    What they did stays in the audit log.
    """
    before = timezone.now() - timedelta(days=KEEP_DAYS)
    ended = BulkAct.objects.exclude(state__in=UNFINISHED)
    return delete_old(ended.filter(touched_at__lt=before).order_by("touched_at"))
