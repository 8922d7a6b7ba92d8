"""Bulk acts go on in the leading scheduler, step by step: outside of the queues that they may be there to rescue."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.utils import timezone

from switchyard.audit.services import complete
from switchyard.broker.errors import BrokerError, QueueFull
from switchyard.bulk.kinds import NoRoom, kind_of
from switchyard.bulk.models import UNFINISHED, BulkAct
from switchyard.database import storable
from switchyard.loggers import get_logger
from switchyard.middleware.clock_comparison import compared_now

# One call goes on for so long, so that its process can end; acts beyond the first twenty wait for one of them to end.
AT_A_TIME_S, AT_ONCE = 10.0, 20
# With a rate a step is followed by the next one after a second at most.
LONGEST_STEP_S = 1.0
# Pause of an act whose step is to be repeated once broker, queue or database can do it.
AGAIN_S = 5.0
AWAY = (BrokerError, QueueFull, OperationalError, InterfaceError)


class BulkRunner:
    """Takes the steps of unfinished acts in turn. The leading scheduler keeps it.

    It claims an act before its first step there: a scheduler that led before, and hangs, finds its run over.
    """

    def __init__(self) -> None:
        self._runs: dict[int, int] = {}
        self._due_s: dict[int, float] = {}

    def go_on(self) -> None:
        """Take steps for up to 10 s, while an act has one to take.

        Raises:
            BrokerError, django.db.OperationalError: of an act that could not go on; the others did.
        """
        until_s, error = time.monotonic() + AT_A_TIME_S, None
        while (now_s := time.monotonic()) < until_s and error is None:
            acts = BulkAct.objects.filter(state__in=UNFINISHED).order_by("id")
            numbers = list(acts.values_list("pk", flat=True)[:AT_ONCE])
            due_s = {number: self._due_s.get(number, now_s) for number in numbers}
            if not due_s or (first_s := min(due_s.values())) > now_s + LONGEST_STEP_S:
                return
            time.sleep(max(first_s - now_s, 0.0))
            for number in [each for each in numbers if due_s[each] <= time.monotonic()]:
                try:
                    self._step(number)
                except AWAY as away:
                    self._due_s[number], error = time.monotonic() + AGAIN_S, away
        if error is not None:
            raise error

    def _step(self, number: int) -> None:
        if number not in self._runs:
            self._runs[number] = claim(number)
        began_s = time.monotonic()
        try:
            act = take_step(number, self._runs[number])
        except NoRoom as full:
            BulkAct.objects.filter(pk=number).update(error=str(full)[:500], touched_at=compared_now())
            self._due_s[number] = time.monotonic() + AGAIN_S
        except AWAY:
            raise
        except Exception as error:
            log.exception("bulk act failed", bulk_act=number)
            fail(number, self._runs[number], f"{type(error).__name__}: {error}")
        else:
            if act is None:
                del self._runs[number]
                self._due_s.pop(number, None)
            elif act.cursor.get("waits"):
                self._due_s[number] = began_s + LONGEST_STEP_S
            elif act.rate is not None:
                self._due_s[number] = began_s + step_size(act) / act.rate


def claim(number: int) -> int:
    """Return the number of a new run of an act. It ends earlier runs."""
    with transaction.atomic():
        BulkAct.objects.filter(pk=number).update(run=F("run") + 1)
        # For update, so that it is read where it was written: a router may name a replica for reads.
        return BulkAct.objects.select_for_update().values_list("run", flat=True).get(pk=number)


log = get_logger(__name__)

MOST = 500
# Reason of items whose step failed; some of them may have been reached.
FAILED = "their step failed"


def begin(number: int, run: int) -> tuple[BulkAct, bool] | None:
    """Take the next items in hand; return the act, and whether an interrupted step had left them there.

    ``None`` when there is nothing to do. Ends the act where no item is left, or where its stop was requested.
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
            return act, True
        if act.stop_asked_at is not None:
            _end(act, BulkAct.State.STOPPED)
            return None
        if act.cursor.get("end"):
            _end(act, BulkAct.State.DONE)
            return None
        taken = kind_of(act.kind).take(act, step_size(act))
        act.note_skips(taken.skips)
        act.hand, act.cursor = list(taken.items), {**taken.cursor, "end": not taken.more, "waits": taken.waits}
        if taken.stopped:
            act.error = storable(taken.stopped)[:500]
            _end(act, BulkAct.State.STOPPED)
            return None
        act.save()
        return act, False


def finish(begun: BulkAct, answers: Sequence[str]) -> bool:
    """Commit the results of a step; ``False`` when another run has done so before."""
    with transaction.atomic():
        act = BulkAct.objects.select_for_update().get(pk=begun.pk)
        if act.run != begun.run or act.step != begun.step or not act.unfinished:
            return False
        kind_of(act.kind).settle(act, begun.hand, answers)
        act.done += sum(not answer for answer in answers)
        act.note_skips(dict(Counter(answer for answer in answers if answer)))
        act.hand, act.step, act.touched_at, act.error = [], act.step + 1, compared_now(), ""
        act.save()
    return True


def take_step(number: int, run: int) -> BulkAct | None:
    """Do one step; return the act, or ``None`` when it has ended or another run continues it.

    While the broker does not answer, the items stay in hand.
    """
    if (begun := begin(number, run)) is None:
        return None
    act, repeated = begun
    if act.cursor.get("waits"):
        return act
    answers = kind_of(act.kind).apply(act, act.hand, repeated=repeated) if act.hand else []
    return act if finish(act, answers) else None


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
