"""What must not be lost waits for a broker that is away: the worker's slot is held, as Dramatiq does with its acks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import structlog

from broker.errors import BrokerUnavailable
from broker.queue.depth_limits import limits_lifted

T = TypeVar("T")

log = structlog.get_logger(__name__)

PAUSE_S = 2.0

# Entered with a job's id while it may wait: for a worker whose limits of time do not count that.
waiting: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext


def hold(act: Callable[[], T], *, job_id: str, what: str) -> T:
    """Do something and return its result, again and again while the broker does not answer, until the worker stops.

    What it enqueues goes into full queues as well.

    Args:
        what: What is held, for the log.
    """
    with waiting(job_id):
        while True:
            try:
                with limits_lifted():
                    return act()
            except BrokerUnavailable as error:
                log.warning("broker away, held", what=what, job_id=job_id, error=str(error))
                time.sleep(PAUSE_S)
