"""The job that does a bulk act, some seconds of it at a time."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from django.db import InterfaceError, OperationalError

from switchyard.broker.errors import BrokerError, QueueFull
from switchyard.broker.queue.depth_limits import limits_lifted
from switchyard.broker.topology import Yard
from switchyard.bulk import services, steps
from switchyard.bulk.errors import NoRoom
from switchyard.bulk.models import BulkAct
from switchyard.conf import declared_yard

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
        steps.fail(number, run, f"{type(error).__name__}: {error}")
        raise


def _continue(act: BulkAct, **details: Any) -> None:
    with limits_lifted():  # its own queue may be the full one
        services.send(act, **details)


def _step(number: int, run: int) -> BulkAct | None:
    began_s = time.monotonic()
    act = steps.take_step(number, run)
    if act is not None and act.rate is not None:
        time.sleep(max(0.0, steps.step_size(act) / act.rate - (time.monotonic() - began_s)))
    return act
