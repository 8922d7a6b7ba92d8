"""Error tracker: each final failure of a job is one event in Sentry, without arguments.

Loaded where the project has set up Sentry's client, see :mod:`switchyard.wiring`.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import sentry_sdk
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker
from sentry_sdk.integrations.logging import ignore_logger

from switchyard.broker.shapes import DeadLetter
from switchyard.loggers import get_logger
from switchyard.middleware.logs import JOBS_LOGGER, SILENCED, running_message
from switchyard.middleware.outcomes import outcome_of

OURS, THEIRS = "switchyard", "dramatiq"
FRAME: Final = re.compile(r'^  File "(?P<filename>[^"]*)", line (?P<lineno>\d+), in (?P<function>.*)$', re.MULTILINE)
FLUSH_S: Final = 2.0
# Parts of an event that may hold arguments: variables are in its frames.
HOLDING: Final = ("breadcrumbs", "extra", "request")

log = get_logger(__name__)


class ErrorTracker(Middleware):
    """Middleware that reports each dead letter once, with fingerprint, actor, queue and the link to its job.

    A failure that its actor declares in ``throws`` is none. Events of Sentry's own integrations of Dramatiq and of
    logging, one for each attempt, are dropped, and others of a job lose what may hold arguments; traces go on. Listed
    before the middleware that makes the dead letter. ``link`` returns the address of a job's page.
    """

    def __init__(self, *, link: Callable[[str], str]) -> None:
        self._link = link
        for name in (JOBS_LOGGER, *SILENCED):
            ignore_logger(name)
        sentry_sdk.get_global_scope().add_event_processor(without_arguments)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if sentry_sdk.get_client().get_integration(THEIRS) is not None:
            # In its scope of the message, where it has added the message to every event.
            sentry_sdk.get_isolation_scope().add_event_processor(without_arguments)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        letter = getattr(message, "dead_letter", None)
        if isinstance(letter, DeadLetter) and not outcome_of(message, exception).expected:
            try:
                sentry_sdk.capture_event(event_of(letter, self._link(letter.id)))
            except Exception as error:  # noqa: BLE001  of the project's own hooks; after-hooks never raise
                log.warning("failure not reported", job_id=letter.id, error=type(error).__name__)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message, exception=message._exception)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Send what is left: a pool's child ends without the interpreter's own clean-up."""
        sentry_sdk.flush(FLUSH_S)


def event_of(letter: DeadLetter, link: str) -> Any:
    """Return the event of a dead letter. Frames are of its last exception, which may have had others as causes."""
    traceback = letter.traceback.rpartition("Traceback (most recent call last):")[2]
    frames = [{**found.groupdict(), "lineno": int(found["lineno"])} for found in FRAME.finditer(traceback)]
    failure = {
        "type": letter.exception,
        "value": f"{letter.actor}: {letter.reason} after {letter.attempts} attempts",
        "mechanism": {"type": OURS, "handled": True},
        "stacktrace": {"frames": frames},
    }
    return {
        "level": "error",
        "logger": JOBS_LOGGER,
        "transaction": letter.actor,
        "fingerprint": [letter.fingerprint],
        "tags": {"actor": letter.actor, "queue": letter.queue, "reason": letter.reason},
        "contexts": {"job": {"id": letter.id, "link": link, "attempts": letter.attempts}},
        "exception": {"values": [failure] if frames else [{**failure, "stacktrace": None}]},
    }


def without_arguments(event: Any, hint: Any) -> Any:
    """Return an event without what may hold arguments of a job; ``None`` for one that Sentry's integration made."""
    values = (event.get("exception") or {}).get("values") or []
    makers = {(value.get("mechanism") or {}).get("type") for value in values}
    if THEIRS in makers:
        return None
    if OURS in makers or running_message() is not None:
        for name in HOLDING:
            event.pop(name, None)
        (event.get("contexts") or {}).pop(THEIRS, None)
        for value in values:
            for frame in (value.get("stacktrace") or {}).get("frames") or []:
                frame.pop("vars", None)
    return event
