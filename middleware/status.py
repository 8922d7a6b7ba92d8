"""Status: the state of each job and its ended attempts; results only where ``store_results`` is set."""

from __future__ import annotations

import json
import logging
import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, ResultNotStored
from switchyard.broker.queue import codec
from switchyard.broker.queue.arguments import in_message
from switchyard.broker.queue.json_body import refused_part
from switchyard.broker.queue.operations import NO_ROW, HistoryRow
from switchyard.broker.stores.history_streams import (
    LOGS_LIMIT_BYTES,
    EndedJob,
    Failure,
    LiveJob,
    Step,
    WorkerPlace,
    encode,
    encode_rows,
    ended_step,
    kept_body,
    live_step,
    sequence,
    success_step,
)
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES, ResultStores
from switchyard.broker.topology import LONGEST_DELAY_MS, Yard, is_whole
from switchyard.broker.worker.acks import AckBarrier
from switchyard.loggers import get_logger
from switchyard.middleware.arguments import missing_arguments
from switchyard.middleware.logs import JOBS_LOGGER, printable, running_message
from switchyard.middleware.options import OptionRule, boolean_of, flag, rule_of_actor, rule_of_both, takes
from switchyard.middleware.outcomes import SUCCEEDED, Outcome, attempt, error_text, fingerprint, outcome_of
from switchyard.middleware.redaction import without_arguments, without_secrets

log = get_logger(__name__)

ERROR_CHARACTERS = 500


def body_of(message: Any) -> bytes:
    """Return a message as it came from the broker, or as it would be enqueued."""
    body = getattr(message, "body", None)
    if isinstance(body, bytes) and body:
        return body
    try:
        return codec.encode(message, grown=True)
    except BrokerError:  # of another library's broker, whose encoding takes more than JSON
        return b""


def result_of(
    message: Any, result: Any, stores: ResultStores, *, keep_ms: int = 0
) -> tuple[str | None, str, Failure | None]:
    """Return a result as JSON, ``null`` of none; or the place that a store keeps it in; or the failure to keep it."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        path, fault, remedy = refused_part(result, "result")
        instead = remedy.replace("{}", path) or "text, numbers, lists, and dicts with text as keys"
        error, fact = ResultNotStored(f"is not stored: {path} {fault}; return {instead}"), "is not JSON"
    else:
        kept_in = stores.keep(message.message_id, text, keep_ms=keep_ms) if len(text) <= stores.limit_bytes else None
        if kept_in is not None:
            return (None if kept_in else text), kept_in, None
        limit_bytes = stores.limit_bytes if len(text) > stores.limit_bytes else RECORD_LIMIT_BYTES
        limit = f"of {len(text)} bytes is not stored, at most {limit_bytes} are"
        error, fact = ResultNotStored(f"{limit}; store what is large, and return its name"), "is too large"
    log.error(f"result {fact}, not kept", error=str(error), job_id=message.message_id, actor=message.actor_name)
    return None, "", failure_of(message, error)


def failure_of(message: Any, exception: BaseException | None, refusal: str = "") -> Failure | None:
    """Return an exception as it is recorded, perhaps with why its retry was refused; ``None`` without one."""
    if exception is None:
        return None
    # An error may quote bytes that were decoded with surrogates, which UTF-8 cannot encode.
    text = error_text(exception, refusal)[:ERROR_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return Failure(type(exception).__name__, text, fingerprint(message.actor_name, exception))


# Bound to every line of a job: its record says them.
NAMES: Final = frozenset({"job_id", "actor", "queue", "attempt", "event", "level", "logger", "timestamp"})
LEFT_OUT: Final = "[earlier lines were left out]\n"
CLOCK: Final = logging.Formatter("%(asctime)s")


class KeptLogs(logging.Handler):
    """Handler that collects the lines of running jobs, the last 16 KiB of each, with the message of the attempt.

    A retry may begin in another thread before the first attempt's hooks have ended.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        message: Any = running_message()
        if message is None or record.name == JOBS_LOGGER:
            return
        try:
            line = _line_of(record)
        except Exception:  # noqa: BLE001  a line that cannot be formatted is the other handlers' to report
            return
        lines = getattr(message, "log_lines", None)
        if lines is None:
            lines = message.log_lines = []
        lines.append(line)
        while len(lines) > 1 and sum(map(len, lines)) > LOGS_LIMIT_BYTES:
            lines[:2] = [LEFT_OUT]

    def of(self, message: Any, actor: Actor[..., Any] | None) -> str | None:
        """Return the lines of an attempt, without probable secrets and hidden arguments; ``None`` if there are none."""
        lines = getattr(message, "log_lines", None)
        if not lines:
            return None
        sent = in_message(message)
        payload = {"args": list(sent.args), "kwargs": sent.kwargs}
        text = without_arguments(actor, payload, without_secrets("".join(lines)))
        return text.encode("utf-8", "backslashreplace")[-LOGS_LIMIT_BYTES:].decode("utf-8", "ignore")


def _drop_lines(message: Any) -> None:
    if getattr(message, "log_lines", None):
        message.log_lines = None


def _line_of(record: logging.LogRecord) -> str:
    if isinstance(event := record.msg, Mapping):
        more = [f"{name}={value}" for name, value in event.items() if name not in NAMES and not name.startswith("_")]
        text = " ".join([str(event.get("event", "")), *more])
    else:
        text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
    line = f"{CLOCK.formatTime(record)} {record.levelname.lower()} {record.name}: {text}"
    return printable(line)[: LOGS_LIMIT_BYTES // 2] + "\n"


HISTORIES: Final = ("all", "failures", "none")
FAILED: Final = frozenset({"dead", "expired", "retrying"})
MOST_SEARCHED: Final = 5


class RecordOptions(NamedTuple):
    """Options of an actor.

    Args:
        history: Jobs that get a row in the history: ``"all"``, ``"failures"`` (also attempts that were retried),
            ``"none"``, or a share of them from 0 to 1.
        result_ttl: Milliseconds that a result is kept in the broker, where that is longer than other records.
        keep_logs: Keep the log lines of every attempt, and not of the failed ones alone.
        is_plain: All of its successes are recorded by their end alone: no results, no log lines, no share.
    """

    track: bool = True
    store_results: bool = False
    history: str | float = "all"
    result_ttl: int = 0
    keep_logs: bool = False
    actor: Actor[..., Any] | None = None
    is_plain: bool = False

    @classmethod
    def of(cls, actor: Actor[..., Any]) -> RecordOptions:
        """Return the options of an actor."""
        given = {name: actor.options[name] for name in cls._fields if actor.options.get(name) is not None}
        kept = cls(**given, actor=actor)
        plain = kept.track is True and kept.history == "all" and not kept.store_results and not kept.keep_logs
        return kept._replace(is_plain=plain)

    def in_history(self, job_id: str, state: str) -> bool:
        """Return whether an ended attempt gets a row; a share is decided by the job's id, alike for all attempts."""
        if self.history == "all":
            return True
        if self.history == "failures":
            return state in FAILED
        return isinstance(self.history, int | float) and zlib.crc32(job_id.encode()) < self.history * 2**32


ALWAYS: Final = RecordOptions()


def _history(value: Any) -> str:
    is_share = type(value) in (int, float) and 0 <= value <= 1
    named = isinstance(value, str) and value in HISTORIES
    return "" if is_share or named else 'write "all", "failures", "none", or a share such as 0.1'


MILLISECONDS: Final = takes(
    lambda value: is_whole(value, least=1, most=LONGEST_DELAY_MS), f"write milliseconds, from 1 to {LONGEST_DELAY_MS}"
)


def _searchable(value: Any, actor: Actor[..., Any]) -> str:
    remedy = f'write up to {MOST_SEARCHED} names of arguments, such as ("customer_id",)'
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MOST_SEARCHED:
        return remedy
    if not all(isinstance(name, str) and name for name in value):
        return remedy
    missing = missing_arguments(actor, value)
    return f"{remedy}; {missing}" if missing else ""


class Status(Middleware):
    """Middleware that records each step of a job that the broker does not know by itself: started, ended.

    The broker writes the steps before it acknowledges their messages. Where it does not find waiting messages by their
    id, a job is recorded when it is enqueued, too. Of the options, ``owner`` of a message says who may see the job.
    """

    option_rules: ClassVar = (
        rule_of_both("store_results", flag),
        rule_of_both("track", flag),
        rule_of_actor("history", _history),
        rule_of_both("result_ttl", MILLISECONDS),
        rule_of_actor("keep_logs", flag),
        OptionRule("search", _searchable),
    )
    actor_options = {rule.name for rule in option_rules}

    def __init__(
        self,
        *,
        yard: Yard,
        barrier: AckBarrier,
        finds_waiting: bool = True,
        history_bytes: int = 0,
        results: ResultStores | None = None,
    ) -> None:
        self._yard, self._barrier = yard, barrier
        self._results = results or ResultStores()
        self._finds_waiting = finds_waiting
        self._history_bytes = history_bytes
        self._queues: dict[str, str] = {}
        self._kept: dict[str, RecordOptions] = {}  # by the actor's name
        self._logs = KeptLogs()
        if finds_waiting:
            barrier.row_of = self._row_of

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        self._kept[actor.actor_name] = RecordOptions.of(actor)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Write on the message that its actor keeps no record: its message would be one."""
        if "track" not in message.options and not self._kept_of(message).track:
            message.options["track"] = False

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Record a job that was sent or deferred; a retry is recorded with the end of its attempt."""
        options = message.options
        if self._finds_waiting and not (options.keys() & LATER_LIFE):
            return
        attempts, due_at = int(options.get("attempts", 0)), options.get("due_at", now_ms() + (delay or 0))
        if "parked_ms" in options:  # ordered before its next start and after its last
            self._add_waiting(message, "scheduled", started=attempts + 1, reason="parked", next_attempt_at=due_at)
        elif attempts > 0 or not self._tracks(message):
            return
        elif delay is None:
            self._add_waiting(message, "queued")
        else:
            reason = options.get("deferred_by", "delay")
            self._add_waiting(message, "scheduled", reason=reason, next_attempt_at=due_at)

    def _add_waiting(self, message: Message[Any], state: str, *, started: int | None = None, **details: Any) -> None:
        attempts, generation = int(message.options.get("attempts", 0)), int(message.options.get("generation", 0))
        order = sequence(generation=generation, attempts=attempts if started is None else started, state=state)
        if attempts == 0 and "deferred_by" in message.options:
            order += 1  # a worker may be faster than the sender's own "queued"
        live = self._live(message, state, attempts=attempts, **details)
        self._barrier.add(live_step(self._queue_of(message.queue_name), live, order=order))

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        if not self._barrier.worker_place.worker:
            worker_name = f"{socket.gethostname()}:{os.getpid()}"
            self._barrier.worker_place = self._barrier.worker_place._replace(worker=worker_name)
        logging.getLogger().addHandler(self._logs)
        self._results.prepare()
        self._barrier.start()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        logging.getLogger().removeHandler(self._logs)
        self._barrier.stop()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self._tracks(message):
            self._barrier.begin(message, self._running)

    def _running(self, message: MessageProxy) -> Step:
        started_at = getattr(message, "started_ms", None)
        live = self._live(message, "running", attempts=attempt(message), started_at=started_at)
        return live_step(self._queue_of(message.queue_name), live)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        try:
            outcome, options = outcome_of(message, exception), message.options
            is_plain = self._kept_of(message).is_plain and "track" not in options and "store_results" not in options
            if outcome is SUCCEEDED and is_plain:
                queue, body = self._queue_of(message.queue_name), kept_body(body_of(message))
                self._barrier.add(success_step(queue, message, self._barrier.worker_place, body))
            elif self._tracks(message):
                self._record_end(message, result, outcome)
        finally:
            _drop_lines(message)

    def _record_end(self, message: MessageProxy, result: Any, outcome: Outcome) -> None:
        kept = self._kept_of(message)
        if outcome.kind == "deferred":
            return
        if outcome.kind == "retried":
            self._add_retried(message, kept, outcome)
            return
        if outcome.kind == "dead":
            error = failure_of(message, outcome.exception, outcome.refusal)
            self._end(message, kept, "dead", reason=outcome.reason, error=error)
            return
        text, kept_in, refused, kept_ms = None, "", None, 0
        if outcome.kind == "succeeded" and boolean_of(message, kept.actor, "store_results", default=False):
            kept_ms = message.options.get("result_ttl") or kept.result_ttl
            text, kept_in, refused = result_of(message, result, self._results, keep_ms=kept_ms)
        self._end(message, kept, outcome.kind, result=text, error=refused, kept_ms=kept_ms, kept_in=kept_in)

    def _row_of(self, message: MessageProxy) -> HistoryRow:
        """Return the row of an attempt that ends with the move of its message: no kill comes between the two."""
        outcome = getattr(message, "outcome", None)
        if not isinstance(outcome, Outcome) or outcome.kind not in ("retried", "dead"):
            return NO_ROW
        state, kept = "retrying" if outcome.kind == "retried" else "dead", self._kept_of(message)
        if not message.options.get("track", kept.track) or not self._in_history(message, kept, state):
            return NO_ROW
        error, reason = failure_of(message, outcome.exception, outcome.refusal), outcome.reason
        ended = self._ended(message, state, attempts=attempt(message), reason=reason, error=error)
        return HistoryRow(encode_rows([encode(ended)]), self._history_bytes)

    def _add_retried(self, message: MessageProxy, kept: RecordOptions, outcome: Outcome) -> None:
        attempts, queue = attempt(message), self._queue_of(message.queue_name)
        error = failure_of(message, outcome.exception)
        ended = self._ended(message, "retrying", attempts=attempts, error=error)
        has_row = self._in_history(message, kept, "retrying") and not self._has_row(message)
        live = self._live(
            message, "retrying", attempts=attempts, started_at=ended.started_at,
            next_attempt_at=now_ms() + (outcome.delay_ms or 0), error=error and Failure(error.type, error.message),
        )  # fmt: skip
        self._barrier.add(live_step(queue, live, rows=ended_step(queue, ended).rows if has_row else ()))

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that was cancelled, or too old, before it started."""
        _drop_lines(message)
        outcome = outcome_of(message)
        if outcome.kind in ("cancelled", "expired") and self._tracks(message):
            kept = self._kept_of(message)
            self._end(message, kept, outcome.kind, has_started=False, reason=outcome.reason)

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Record a job that no worker could start, unless it is parked."""
        if outcome_of(message, message._exception).kind != "deferred":
            error = failure_of(message, message._exception)
            self._end(message, ALWAYS, "dead", has_started=False, reason="permanent", error=error)

    def after_quarantine_message(self, broker: Broker, message: Message[Any], error: Exception) -> None:
        """Record a job whose message no worker of this release understands as dead."""
        if self._tracks(message):
            failure = failure_of(message, error)
            self._end(message, ALWAYS, "dead", has_started=False, reason="quarantined", error=failure)

    def _end(
        self, message: Any, kept: RecordOptions, state: str, *, has_started: bool = True, kept_ms: int = 0, **how: Any
    ) -> None:
        attempts = attempt(message) if has_started else int(message.options.get("attempts", 0))
        ended = self._ended(message, state, attempts=attempts, **how)
        # Else a step of the start that did not come: it may have, in a worker that died since.
        order = None if has_started else sequence(generation=ended.generation, attempts=attempts + 1, state=state)
        in_history = self._in_history(message, kept, state) and not (state == "dead" and self._has_row(message))
        queue = self._queue_of(message.queue_name)
        marked = message.options.get("track") is True  # sent with a job id of its own
        step = ended_step(queue, ended, order=order, in_history=in_history, kept_ms=kept_ms, marked=marked)
        self._barrier.add(step)

    def _ended(self, message: Any, state: str, *, attempts: int, **how: Any) -> EndedJob:
        """Return the record of an ended attempt; ``how`` are its ``reason``, ``error``, ``result`` and ``kept_in``."""
        pool, worker, release = self._barrier.worker_place
        kept = self._kept_of(message)
        logs = self._logs.of(message, kept.actor) if kept.keep_logs or state in ("retrying", "dead") else None
        return EndedJob(
            id=message.message_id, state=state, attempt=attempts, generation=int(message.options.get("generation", 0)),
            started_at=getattr(message, "started_ms", None), finished_at=now_ms(), logs=logs, lane=message.queue_name,
            pool=pool, worker=worker, release=release, body=kept_body(body_of(message)), **how,
        )  # fmt: skip

    def _live(self, message: Any, state: str, *, attempts: int, **details: Any) -> LiveJob:
        pool, worker, release = self._barrier.worker_place if attempts else WorkerPlace()
        body = "" if self._finds_waiting else str(kept_body(body_of(message)), "utf-8")
        return LiveJob(
            message.message_id, state, attempt=attempts, generation=int(message.options.get("generation", 0)),
            lane=message.queue_name, pool=pool, worker=worker, release=release, message=body, **details,
        )  # fmt: skip

    def _kept_of(self, message: Any) -> RecordOptions:
        return self._kept.get(message.actor_name, ALWAYS)

    def _tracks(self, message: Any) -> bool:
        """Return whether a message's job is recorded: its own option, else that of its actor."""
        asked = message.options.get("track")
        return asked if isinstance(asked, bool) else self._kept_of(message).track

    def _in_history(self, message: Any, kept: RecordOptions, state: str) -> bool:
        # Sent with a job id of its own: the history tells a repetition that it was enqueued.
        return message.options.get("track") is True or kept.in_history(message.message_id, state)

    def _has_row(self, message: Any) -> bool:
        """Return whether the move of a message wrote its row, or found that its lease was lost."""
        moved = getattr(message, "moved", False) is True
        return self._finds_waiting and moved and isinstance(getattr(message, "outcome", None), Outcome)

    def _queue_of(self, lane: str) -> str:
        if lane not in self._queues:
            self._queues[lane] = self._yard.queue_of(lane.removesuffix(".DQ")).name
        return self._queues[lane]


# Options of a message that is not sent for the first time.
LATER_LIFE = frozenset({"attempts", "generation", "deferred_by", "parked_ms"})
