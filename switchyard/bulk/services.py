"""Bulk acts: started, stopped and read."""

from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from switchyard.audit.services import Who, act, begin
from switchyard.broker.errors import ActRefused, NotFound
from switchyard.bulk.kinds import KindTexts, kind_of
from switchyard.bulk.models import UNFINISHED, BulkAct
from switchyard.database import delete_old, storable
from switchyard.loggers import get_logger
from switchyard.middleware.clock_comparison import compared_now

log = get_logger(__name__)

KEEP_DAYS = 90
# Largest numbers of a plan.
PLAN: Final = {"canary": 500, "stop_percent": 100}


def start(
    kind: str, filter: dict[str, Any], *, who: Who, reason: str = "", rate: int | None = None, form_id: str = "",
    plan: dict[str, int] | None = None,
) -> BulkAct:  # fmt: skip
    """Start a bulk act on all that match a filter now, and return its row. The scheduler does it.

    Args:
        kind: Its name, such as ``letter.requeue``.
        filter: What it is applied to; see the kind.
        rate: Items a second at most; ``None`` for as fast as it goes.
        form_id: Id of the form that starts it.
        plan: Of a rollout: ``canary``, items that are to end well before the others follow (without it one, then ten),
            and ``stop_percent``, the share of failures above which it stops (without it 10).

    Raises:
        IntegrityError: an act of this form has started.
        NotFound: there is no such kind.
        PermissionDenied: the right to the act holds for other queues than those of all that match.
        ValueError: the filter is wrong, the rate is below 1, or the plan has other numbers than it may.
        BrokerUnavailable: the broker did not answer; nothing is started.
    """
    chosen = kind_of(kind)
    stored = chosen.check(filter)
    if rate is not None and rate < 1:
        raise ValueError(f"rate: {rate} is below 1; give items a second, or leave it out")
    plan = checked_plan(chosen.texts.rolls_out, plan or {})
    row = BulkAct(
        kind=kind, filter=stored, rate=rate, plan=plan, reason=storable(reason)[:500], who=who.name, via=who.via
    )
    row.created_at = row.touched_at = compared_now()
    row.form_id = form_id or None
    who.require(chosen.right, partial(chosen.queues, row))
    with act(
        "bulk.start", who=who, reason=reason, detail={"kind": kind, "filter": stored, "rate": rate, **plan}
    ) as entry:
        row.total = chosen.count(row)
        with transaction.atomic():
            row.save()
        entry.target, entry.count = f"bulk act {row.pk}", row.total
        row.audit_id = begin(chosen.act, who=who, target=entry.target, reason=reason, detail={"filter": stored})
        row.save(update_fields=("audit_id",))
    return row


def checked_plan(rolls_out: bool, plan: dict[str, int]) -> dict[str, int]:
    """Return a plan; ``ValueError`` where the kind of act has none, or a number is out of range."""
    if plan and not rolls_out:
        raise ValueError("plan: only a rollout has one; leave canary and stop_percent out")
    for name, value in plan.items():
        if name not in PLAN or not 1 - (name == "stop_percent") <= value <= PLAN[name]:
            raise ValueError(f"{name}: {value} is not in its range; write a number up to {PLAN.get(name, 0)}")
    return plan


def take_back(number: int, *, who: Who, reason: str = "") -> BulkAct:
    """Start the act that takes back what another one did, as far as it has not started.

    Raises:
        ActRefused: it goes on, or its kind cannot be taken back.
    """
    row = find(number).act
    undo = kind_of(row.kind).texts.taken_back_by
    if not undo:
        raise ActRefused(f"bulk act {number}", "what it has done cannot be taken back")
    if row.unfinished:
        raise ActRefused(f"bulk act {number}", "it goes on; stop it first")
    return start(undo, {"act": number}, who=who, reason=reason)


def no_such_act(number: object) -> NotFound:
    return NotFound(f"bulk act {number}: there is none; see `manage.py switchyard bulk list`")


def stop(number: int, *, who: Who, reason: str = "") -> bool:
    """Stop a bulk act after the step that it is in; return ``False`` if it had ended, or was stopped, before.

    What it has done stays done. ``NotFound`` where no bulk act has this number.
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
    return True


def delete_old_rows() -> int:
    """Delete acts that ended over 90 days ago, as many as ``delete_old`` does; return the count.

    What they did stays in the audit log.
    """
    before = timezone.now() - timedelta(days=KEEP_DAYS)
    ended = BulkAct.objects.exclude(state__in=UNFINISHED)
    return delete_old(ended.filter(touched_at__lt=before).order_by("touched_at"))


PAGE = 50
# A rate of less time says more about the clock than about the act.
LEAST_S: Final = 1.0
# An act of a kind that this release does not have.
UNKNOWN_TEXTS = KindTexts("Do", "item", "items", effect="", undo="", left="as they are")


class Progress:
    """A bulk act as pages and the command show it.

    ``share`` is of the items, 0 to 1; ``rate`` items a second since its start, ``None`` before the first step, and of
    less than a second; ``left_s`` seconds until its end at that rate; ``took_s`` seconds from its request to its end,
    with its wait for the scheduler, ``None`` before.
    """

    def __init__(self, act: BulkAct) -> None:
        self.act, self.texts, self.address = act, UNKNOWN_TEXTS, ""
        with suppress(NotFound):
            kind = kind_of(act.kind)
            self.texts, self.address = kind.texts, kind.address(act.filter)
        reached = act.done + act.skipped
        self.rate: float | None = None
        self.left_s: float | None = None
        self.took_s: float | None = None
        if act.started_at is not None:
            until = act.ended_at or (timezone.now() if act.unfinished else act.touched_at)
            ran_s = max((until - act.started_at).total_seconds(), 0.0)
            self.took_s = None if act.unfinished else max((until - act.created_at).total_seconds(), 0.0)
            self.rate = reached / ran_s if reached and ran_s >= LEAST_S else None
            self.left_s = max(0, act.total - reached) / self.rate if self.rate and act.unfinished else None
        is_done = act.state == BulkAct.State.DONE
        self.share = 1.0 if is_done else min(1.0, reached / act.total if act.total else 0.0)

    @property
    def title(self) -> str:
        """Return such as ``Requeue 5,000 dead letters``."""
        count = self.act.total if self.act.unfinished else max(self.act.total, self.act.done)
        return f"{self.texts.verb} {self.texts.counted(count)}"

    @property
    def reached(self) -> str:
        """Return what is done, such as ``1 dead letter``."""
        return self.texts.counted(self.act.done)

    @property
    def left(self) -> int:
        """Return how many items are not reached yet."""
        return max(0, self.act.total - self.act.done - self.act.skipped)

    @property
    def level(self) -> str:
        """Return ok, warn or bad, or "" while it goes on."""
        return {"done": "ok", "stopped": "warn", "failed": "bad"}.get(self.act.state, "")


def find(number: int) -> Progress:
    """Return the progress of the bulk act of a number, or ``NotFound``."""
    act = BulkAct.objects.filter(pk=number).first()
    if act is None:
        raise no_such_act(number)
    return Progress(act)


def newest(*, before: int | None = None, limit: int = PAGE) -> list[Progress]:
    acts = BulkAct.objects.order_by("-id")
    if before is not None:
        acts = acts.filter(pk__lt=before)
    return [Progress(act) for act in acts[:limit]]


def summary(progress: Progress) -> dict[str, Any]:
    act = progress.act
    return {
        "number": act.pk,
        **{
            name: getattr(act, name)
            for name in ("kind", "filter", "plan", "state", "total", "done", "skipped", "skips")
        },
        "rate_per_s": None if progress.rate is None else round(progress.rate, 1),
        "took_s": None if progress.took_s is None else round(progress.took_s, 3),
        "left_s": None if progress.left_s is None else round(progress.left_s, 1),
        **{name: getattr(act, name) for name in ("who", "reason", "error")},
        "created_at": act.created_at.isoformat(),
        "ended_at": None if act.ended_at is None else act.ended_at.isoformat(),
    }
