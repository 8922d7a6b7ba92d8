"""The job that does a bulk act, some seconds of it at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import dramatiq
import msgspec
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from switchyard.audit.services import complete
from switchyard.broker.errors import BrokerError, QueueFull
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.topology import Yard
from switchyard.bulk import services
from switchyard.bulk.kinds import Item, Kind, NoRoom, kind_of
from switchyard.bulk.models import BulkAct
from switchyard.conf import declared_yard
from switchyard.database import storable
from switchyard.loggers import get_logger
from switchyard.middleware.clock_comparison import compared_now

# A job of a long act makes room for others, and a deploy waits for no longer than this.
AT_A_TIME_S = 10.0
NO_ROOM_MS = 5_000
# The step is repeated once broker, queue or database can do it.
AWAY = (BrokerError, QueueFull, OperationalError, InterfaceError)


def queue_of(yard: Yard) -> str:
    """Return the queue of bulk acts: ``default``, or else the yard's first."""
    names = [queue.name for queue in yard.queues]
    return "default" if "default" in names else names[0]


# Before the messages that it may be there to cancel.
@dramatiq.actor(queue_name=queue_of(declared_yard()), priority=-1)
def run_bulk_act(number: int, run: int) -> None:
    """Do the next steps of a bulk act, then enqueue the job that continues it.

    Args:
        number: Of the act.
        run: Number of this job: an act that was resumed has a later one, and this one ends.
    """
    until_s = time.monotonic() + AT_A_TIME_S
    try:
        while (act := _step(number, run)) is not None:
            if time.monotonic() >= until_s:
                _continue(act)
                return
    except NoRoom as error:
        _continue(BulkAct.objects.get(pk=number), waits_for=str(error), delay_ms=NO_ROOM_MS)
    except AWAY:
        raise
    except Exception as error:  # a repetition would fail alike, and the act would be resumed for ever
        fail(number, run, f"{type(error).__name__}: {error}")
        raise


def _continue(act: BulkAct, **details: Any) -> None:
    with limits_lifted():  # its own queue may be the full one
        services.send(act, **details)


def _step(number: int, run: int) -> BulkAct | None:
    began_s = time.monotonic()
    act = take_step(number, run)
    if act is not None and act.rate is not None:
        time.sleep(max(0.0, step_size(act) / act.rate - (time.monotonic() - began_s)))
    return act


log = get_logger(__name__)

MOST = 500
# Reason of items whose step failed; some of them may have been reached.
FAILED = "their step failed"


class Begun(msgspec.Struct, frozen=True):
    """A step whose items are in hand."""

    act: BulkAct
    items: Sequence[Item]
    repeated: bool


def begin(number: int, run: int) -> Begun | None:
    """Take the next items in hand, or those that an interrupted step left there; ``None`` when there is nothing to do.

    Ends the act where none is left, or where somebody asked for its stop.
    """
    with transaction.atomic():
        act = BulkAct.objects.select_for_update().filter(pk=number).first()
        if act is None or act.run != run or not act.unfinished:
            return None
        act.touched_at = compared_now()
        if act.state == BulkAct.State.WAITING:
            act.state, act.started_at = BulkAct.State.RUNNING, act.touched_at
        if act.hand:
            act.save(update_fields=("touched_at", "state", "started_at"))
            return Begun(act, act.hand, repeated=True)
        if act.stop_asked_at is not None:
            _end(act, BulkAct.State.STOPPED)
            return None
        if act.cursor.get("end"):
            _end(act, BulkAct.State.DONE)
            return None
        taken = kind_of(act.kind).take(act, step_size(act))
        act.note_skips(taken.skips)
        act.hand, act.cursor = list(taken.items), {**taken.cursor, "end": not taken.more}
        act.save()
        return Begun(act, act.hand, repeated=False)


def finish(begun: Begun, answers: Sequence[str]) -> bool:
    """Commit the results of a step; ``False`` when another job has done so before."""
    with transaction.atomic():
        act = BulkAct.objects.select_for_update().get(pk=begun.act.pk)
        if act.run != begun.act.run or act.step != begun.act.step or not act.unfinished:
            return False
        kind_of(act.kind).settle(act, begun.items, answers)
        act.done += sum(not answer for answer in answers)
        act.note_skips(dict(Counter(answer for answer in answers if answer)))
        act.hand, act.step, act.touched_at, act.error = [], act.step + 1, compared_now(), ""
        act.save()
    return True


def take_step(number: int, run: int) -> BulkAct | None:
    """Do one step; return the act, or ``None`` when it has ended or another job continues it.

    Raises:
        BrokerUnavailable: the broker did not answer; the items stay in hand.
    """
    begun = begin(number, run)
    if begun is None:
        return None
    kind: Kind = kind_of(begun.act.kind)
    answers = kind.apply(begun.act, begun.items, repeated=begun.repeated) if begun.items else []
    return begun.act if finish(begun, answers) else None


def fail(number: int, run: int, error: str) -> None:
    """End an act that cannot go on, and release its items in hand."""
    with transaction.atomic():
        act = BulkAct.objects.select_for_update().get(pk=number)
        if act.run == run and act.unfinished:
            if act.hand:
                with suppress(Exception), transaction.atomic():  # the step may have failed right there
                    kind_of(act.kind).settle(act, act.hand, [FAILED] * len(act.hand))
                act.note_skips({FAILED: len(act.hand)})
            act.hand, act.error = [], storable(error)[:500]
            _end(act, BulkAct.State.FAILED)


def step_size(act: BulkAct) -> int:
    """Return how many items a step takes: with a rate about those of one second."""
    return MOST if act.rate is None else min(MOST, max(1, act.rate))


def _end(act: BulkAct, state: BulkAct.State) -> None:
    act.state, act.ended_at = state, timezone.now()
    act.save()
    if act.audit_id is not None:
        complete(act.audit_id, count=act.done, error=act.error, detail={"skipped": act.skipped, "skips": act.skips})
    log.info(
        "bulk act ended", bulk_act=act.pk, kind=act.kind, by=act.who, state=str(state), done=act.done,
        skipped=act.skipped,
    )  # fmt: skip
