"""What must not be lost waits for a broker that is away: the worker's slot is held, as Dramatiq does with its acks."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from broker.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

PAUSE_S = 2.0


def hold(act: Callable[[], object], *, job_id: str, what: str) -> None:
    """Do something, again and again while the broker does not answer, until the worker is stopped.

    Args:
        what: What is held, for the log.
    """
    while True:
        try:
            act()
            return
        except BrokerUnavailable as error:
            log.warning("broker away, held", what=what, job_id=job_id, error=str(error))
            time.sleep(PAUSE_S)
