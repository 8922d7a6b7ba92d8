"""Reads of bulk acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.utils import timezone

from switchyard.broker.errors import NotFound
from switchyard.bulk.kinds import KindTexts, kind_of
from switchyard.bulk.models import UNFINISHED, BulkAct

PAGE = 50
# A rate of less time says more about the clock than about the act.
LEAST_S: Final = 1.0
# An act of a kind that no installed app has any more.
UNKNOWN_TEXTS = KindTexts("Do", "item", "items", effect="", undo="", left="as they are")


@dataclass(frozen=True, slots=True)
class Progress:
    """A bulk act as pages and the command show it.

    Args:
        share: Of the items, 0 to 1.
        rate: Items a second since its start; ``None`` before the first step, and of less than a second.
        left_s: Seconds until its end at that rate.
        took_s: Seconds from its start to its end; ``None`` before either.
    """

    act: BulkAct
    texts: KindTexts
    share: float
    rate: float | None
    left_s: float | None
    took_s: float | None
    address: str

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


def progress_of(act: BulkAct) -> Progress:
    """Return the progress of an act."""
    try:
        kind = kind_of(act.kind)
    except NotFound:
        texts, address = UNKNOWN_TEXTS, ""
    else:
        texts, address = kind.texts, kind.address(act.filter)
    reached = act.done + act.skipped
    rate = left_s = took_s = None
    if act.started_at is not None:
        until = act.ended_at or (timezone.now() if act.unfinished else act.touched_at)
        ran_s = max((until - act.started_at).total_seconds(), 0.0)
        took_s = None if act.unfinished else ran_s
        rate = reached / ran_s if reached and ran_s >= LEAST_S else None
        left_s = max(0, act.total - reached) / rate if rate and act.unfinished else None
    share = 1.0 if act.state == BulkAct.State.DONE else min(1.0, reached / act.total if act.total else 0.0)
    return Progress(act, texts, share, rate, left_s, took_s, address)


def find(number: int) -> Progress | None:
    """Return one act, or ``None``."""
    act = BulkAct.objects.filter(pk=number).first()
    return None if act is None else progress_of(act)


def newest(*, before: int | None = None, limit: int = PAGE) -> list[Progress]:
    """Return acts, newest first."""
    acts = BulkAct.objects.order_by("-id")
    if before is not None:
        acts = acts.filter(pk__lt=before)
    return [progress_of(act) for act in acts[:limit]]


def going_on() -> int:
    """Return how many acts wait or run."""
    return BulkAct.objects.filter(state__in=UNFINISHED).count()


def summary(progress: Progress) -> dict[str, Any]:
    """Return an act as a JSON value."""
    act = progress.act
    return {
        "number": act.pk,
        **{name: getattr(act, name) for name in ("kind", "filter", "state", "total", "done", "skipped", "skips")},
        "rate_per_s": None if progress.rate is None else round(progress.rate, 1),
        "took_s": None if progress.took_s is None else round(progress.took_s, 3),
        "left_s": None if progress.left_s is None else round(progress.left_s, 1),
        **{name: getattr(act, name) for name in ("who", "reason", "error")},
        "created_at": act.created_at.isoformat(),
        "ended_at": None if act.ended_at is None else act.ended_at.isoformat(),
    }
