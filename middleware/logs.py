"""Logs: one line for each attempt, as JSON or for a terminal; lines that the job logs carry its id.

Message arguments are never logged: Dramatiq's own worker lines, which show them, are silenced.
"""

import io
import logging
import sys
import time
from collections import defaultdict
from collections.abc import MutableMapping
from contextvars import ContextVar
from importlib import import_module
from typing import Any, TextIO

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from switchyard.loggers import get_logger
from switchyard.middleware.envelope import current_origin
from switchyard.middleware.outcomes import Outcome, attempt, outcome_of, text_of

JOBS_LOGGER = "switchyard.jobs"
REQUEST_ID = "switchyard.request_id"  # in the META of a request; no header of a client leads there
log = get_logger(JOBS_LOGGER)

_running: ContextVar[MessageProxy | None] = ContextVar("switchyard_running", default=None)

# A failure's text may be as long as what a stranger sent; a longer traceback keeps its beginning and its end.
LONGEST_TRACEBACK = 16 * 1024
# Bytes that attempts of this process logged, by queue and actor. Changed under the handler's lock alone.
LOGGED: defaultdict[tuple[str, str], int] = defaultdict(int)
# Logs messages with their arguments.
SILENCED = ("dramatiq.worker.WorkerThread",)
# Dramatiq logs it with a traceback for each parked message, and claims that the message was moved to its dead list.
UNTRUE = "Received message for undefined actor"


class Logs(Middleware):
    """Log of the end of each attempt; with ``tracebacks`` the first failure has one, and not the last one alone."""

    def __init__(self, *, tracebacks: bool = False) -> None:
        self._tracebacks = tracebacks
        # Asked whether a level is enabled: structlog formats a line before it drops it.
        self._sink = logging.getLogger(JOBS_LOGGER)

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Load structlog, before several threads log their first line."""
        import_module("structlog")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Bind the job's names to every line that the actor logs."""
        if _running.get() is not None:
            _unbind()  # the end of the message before was interrupted
        _running.set(message)
        message.started_s = time.monotonic()  # type: ignore[attr-defined]

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        outcome = outcome_of(message, exception)
        if outcome.kind in ("dead", "retried") or self._sink.isEnabledFor(logging.INFO):
            self._log_end(message, outcome, exception)
        _unbind()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if self._sink.isEnabledFor(logging.INFO):
            outcome = outcome_of(message)
            write = log.warning if outcome.kind == "expired" else log.info
            write(outcome.kind, reason=outcome.reason, delay_ms=outcome.delay_ms, **_names(message))
        _unbind()

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        outcome = outcome_of(message, message._exception)
        if outcome.kind == "deferred":
            log.info("deferred", reason=outcome.reason, delay_ms=outcome.delay_ms, **_names(message))
            return
        log.error("dead", reason="permanent", exception=type(message._exception).__name__, **_names(message))

    def _log_end(self, message: MessageProxy, outcome: Outcome, exception: BaseException | None) -> None:
        names = _names(message)
        duration_ms = int((time.monotonic() - (getattr(message, "started_s", None) or time.monotonic())) * 1000)
        cause = outcome.exception or exception
        if outcome.kind == "dead":
            facts = {"reason": outcome.reason, "duration_ms": duration_ms}
            if outcome.expected:
                log.info("dead", **facts, **_error(cause), **names)
            else:
                refusal = {"refusal": outcome.refusal} if outcome.refusal else {}
                log.error("dead", **facts, exc_info=cause, **refusal, **names)
        elif outcome.kind == "retried":
            first = {"exc_info": cause} if self._tracebacks and names["attempt"] == 1 else {}
            log.warning(
                "retried", duration_ms=duration_ms, delay_ms=outcome.delay_ms, **_error(cause), **first, **names
            )
        else:
            log.info(outcome.kind, duration_ms=duration_ms, **names)


def _error(cause: BaseException | None) -> dict[str, Any]:
    return {"exception": type(cause).__name__, "error": text_of(cause)[:500] if cause else ""}


def running_message() -> MessageProxy | None:
    """Return the message that the current code runs for, or ``None``."""
    return _running.get()


def _unbind() -> None:
    """Unbind the job's names, and what its actor bound."""
    _running.set(None)
    bound = sys.modules.get("structlog.contextvars")  # not loaded as long as nothing was logged
    # One variable for each name that was ever bound here: going through a context costs more than a hook.
    if bound is not None and getattr(bound, "_CONTEXT_VARS", True):
        bound.clear_contextvars()


def _of_job(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the running job's names, request and trace to a line. Built for each line, because most jobs log nothing."""
    message = _running.get()
    if message is not None:
        return {**_names(message), **_of_trace(), **event}
    # Django logs a refusal after the middleware that knows the request has ended.
    answered: Any = getattr(event.get("_record"), "request", None)
    request = getattr(answered, "META", {}).get(REQUEST_ID) or current_origin().get("request")
    return {**({"request": request} if request else {}), **_of_trace(), **event}


def _names(message: MessageProxy) -> dict[str, Any]:
    names = {
        "job_id": message.message_id,
        "actor": message.actor_name,
        "queue": message.queue_name,
        "attempt": attempt(message),
    }
    origin = message.options.get("origin")
    if isinstance(origin, dict) and (request := origin.get("request")):
        names["request"] = request
    return names


def _of_trace() -> dict[str, str]:
    """Return the ids of the current span, where OpenTelemetry is loaded and the trace is sampled."""
    if (trace := sys.modules.get("opentelemetry.trace")) is None:
        return {}
    span = trace.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.trace_flags.sampled else {}


def _printable(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters: a name in a message must not forge lines or move a cursor."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _on_the_line(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Rename the name of an exception: structlog's renderer for terminals takes ``exception`` for a traceback."""
    if isinstance(event.get("exception"), str):
        event["raised"] = event.pop("exception")
    return event


def _plain(output: TextIO, exception: Any) -> None:
    """Write a traceback without local variables, arguments among them, and without control characters."""
    import structlog

    text = io.StringIO()
    structlog.dev.plain_traceback(text, exception)
    output.write(printable_lines(_shortened(text.getvalue())))


def _short_traceback(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut a traceback that ``format_exc_info`` has made."""
    if isinstance(event.get("exception"), str):
        event["exception"] = _shortened(event["exception"])
    return event


def _shortened(text: str) -> str:
    surplus, half = len(text) - LONGEST_TRACEBACK, LONGEST_TRACEBACK // 2
    return text if surplus <= 0 else f"{text[:half]}\n[{surplus} characters left out]\n{text[-half:]}"


def printable(text: str) -> str:
    """Return a text with its control characters escaped, so that none reaches a terminal."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines with its control characters escaped, but for the line feeds."""
    return "\n".join(map(printable, text.split("\n")))


def use_standard_logging() -> None:
    """Pass what is logged through structlog on to the standard library's loggers, unless the host configures it."""
    import structlog

    if structlog.is_configured():
        return
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _of_job, _as_one_line],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _as_one_line(logger: Any, method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str, str], dict[str, Any]]:
    exc_info = event.pop("exc_info", None)
    words = [str(event.pop("event", "")), *(f"{name}={value}" for name, value in event.items())]
    return ("%s", printable(" ".join(words))), {"exc_info": exc_info}


def _without_traceback_of_refusals(record: logging.LogRecord) -> bool:
    """Log a request that was refused in one line: a crawl of forbidden pages would fill the log with tracebacks."""
    refused = record.name == "django.request" and record.levelno < logging.ERROR
    if refused or record.name.startswith("django.security"):
        record.exc_info = record.exc_text = None
    return True


class CountedHandler(logging.StreamHandler[TextIO]):
    """Handler of standard error that notes how much each attempt logs."""

    def format(self, record: logging.LogRecord) -> str:
        text = self.formatter.format(record)  # type: ignore[union-attr]  # it is given one at once
        if (message := _running.get()) is not None:
            count = len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
            LOGGED[message.queue_name, message.actor_name] += count + 1
        return text


def configure(log_format: str, *, level: int = logging.INFO, release: str = "") -> None:
    """Send every log of this process to standard error: as ``json``, with the release, or ``console`` for terminals."""
    import structlog

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _of_job,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: list[Any] = [
        _on_the_line,
        _printable,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain),
    ]
    if log_format == "json":
        named = {"release": release} if release else {}
        render = [
            lambda logger, method, event: {**event, **named},
            structlog.processors.format_exc_info,
            _short_traceback,
            structlog.processors.JSONRenderer(),
        ]
    handler = CountedHandler()
    handler.addFilter(lambda record: not (isinstance(record.msg, str) and record.msg.startswith(UNTRUE)))
    handler.addFilter(_without_traceback_of_refusals)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
