"""Retries of broker calls while the broker does not answer: the worker's slot waits, so that no message is lost."""

import contextlib
import errno
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue.administration import limits_lifted
from switchyard.loggers import get_logger
from switchyard.middleware.envelope import following

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

PAUSE_S = 2.0
# A process that can open nothing refuses no message: its supervisor replaces it.
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

# Entered with a job's id while it waits for no fault of its own. A worker replaces it: no hard limit counts that time.
waiting: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext


def retry_until_available(
    message: Message[Any] | MessageProxy, what: str, act: Callable[P, T], *args: P.args, **options: P.kwargs
) -> T:
    """Call a function every 2 s until the broker answers, and return its result; ``what`` is its subject in the log.

    Depth limits of queues do not apply to the call: a worker that waited for room might wait for itself.
    """
    job_id = message.message_id
    with waiting(job_id), following(job_id):
        while True:
            try:
                with limits_lifted():
                    return act(*args, **options)
            except (BrokerUnavailable, OSError) as error:
                if isinstance(error, OSError) and error.errno not in NO_DESCRIPTOR:
                    raise
                log.warning("broker unavailable, retrying", what=what, job_id=job_id, error=str(error))
                time.sleep(PAUSE_S)
