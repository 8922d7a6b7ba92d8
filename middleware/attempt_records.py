"""Parts of an ended attempt's record: the message's body, the result, the failure."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.errors import BrokerError, ResultNotStored
from switchyard.broker.queue import codec
from switchyard.broker.queue.arguments.types import in_message
from switchyard.broker.queue.json_values import refused_part
from switchyard.broker.stores.ended_jobs import LOGS_LIMIT_BYTES, Failure
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES, ResultStores
from switchyard.broker.validation import LONGEST_DELAY_MS, is_whole
from switchyard.loggers import get_logger
from switchyard.middleware.arguments import missing_arguments
from switchyard.middleware.logs import JOBS_LOGGER, printable, running_message
from switchyard.middleware.option_rules import OptionRule, flag, rule_of_both
from switchyard.middleware.outcomes import error_text, fingerprint
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
        text = json.dumps(result)
    except (TypeError, ValueError, RecursionError):
        path, fault, remedy = refused_part(result, "result")
        instead = remedy.replace("{}", path) or "text, numbers, lists, and dicts with text as keys"
        error, fact = ResultNotStored(f"is not stored: {path} {fault}; return {instead}"), "is no JSON"
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
    text = _speakable(error_text(exception, refusal)[:ERROR_CHARACTERS])
    return Failure(type(exception).__name__, text, fingerprint(message.actor_name, exception))


def _speakable(text: str) -> str:
    """Return a text that UTF-8 can encode: an error may quote bytes that were decoded with surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


# Bound to every line of a job: its record says them.
NAMES: Final = frozenset({"job_id", "actor", "queue", "attempt", "event", "level", "logger", "timestamp"})
LEFT_OUT: Final = "[earlier lines were left out]\n"
CLOCK: Final = logging.Formatter("%(asctime)s")


class KeptLogs(logging.Handler):
    """Handler that collects the lines of running jobs: the last 16 KiB of each, until :meth:`drop`.

    They are kept with the message of the attempt: a retry may begin in another thread before its first attempt's hooks
    have ended. The lines that this library logs at the end of an attempt are left out: the record says the same.
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

    def drop(self, message: Any) -> None:
        if getattr(message, "log_lines", None):
            message.log_lines = None


def _line_of(record: logging.LogRecord) -> str:
    text = _event_of(record.msg) if isinstance(record.msg, Mapping) else record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
    line = f"{CLOCK.formatTime(record)} {record.levelname.lower()} {record.name}: {text}"
    return printable(line)[: LOGS_LIMIT_BYTES // 2] + "\n"


def _event_of(event: Mapping[str, Any]) -> str:
    more = [f"{name}={value}" for name, value in event.items() if name not in NAMES and not name.startswith("_")]
    return " ".join([str(event.get("event", "")), *more])


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
        search: Names of arguments by whose values jobs are found in the history.
    """

    track: bool = True
    store_results: bool = False
    history: str | float = "all"
    result_ttl: int = 0
    keep_logs: bool = False
    search: Sequence[str] = ()
    actor: Actor[..., Any] | None = None

    @classmethod
    def of(cls, actor: Actor[..., Any] | None) -> RecordOptions:
        """Return the options of an actor, those of none by default."""
        if actor is None:
            return cls()
        given = {name: actor.options[name] for name in cls._fields if actor.options.get(name) is not None}
        return cls(**given, actor=actor)

    def in_history(self, job_id: str, state: str) -> bool:
        """Return whether an ended attempt gets a row; a share is decided by the job's id, alike for all attempts."""
        if self.history == "all":
            return True
        if self.history == "failures":
            return state in FAILED
        return isinstance(self.history, int | float) and zlib.crc32(job_id.encode()) < self.history * 2**32


ALWAYS: Final = RecordOptions()


class ActorRecords(dict[str, RecordOptions]):
    """Cache of the options of each actor, by name.

    ``plain`` are actors all of whose successes are recorded by their end alone: no results, no log lines, no share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain: set[str] = set()

    def of(self, broker: Broker, actor_name: str) -> RecordOptions:
        """Return the options of an actor; of an unknown one the defaults, which are not cached."""
        kept = self.get(actor_name)
        if kept is None:
            kept = RecordOptions.of(broker.actors.get(actor_name))
            if actor_name in broker.actors:
                self[actor_name] = kept
                if kept.track is True and kept.history == "all" and not kept.store_results and not kept.keep_logs:
                    self.plain.add(actor_name)
        return kept

    def forget(self, actor_name: str) -> None:
        """Drop the options of an actor that is declared again, as by a test or another definition of its name."""
        self.pop(actor_name, None)
        self.plain.discard(actor_name)

    def tracked(self, broker: Broker, message: Any) -> bool:
        """Return whether a message's job is recorded: its own option, else that of its actor."""
        asked = message.options.get("track")
        return asked if isinstance(asked, bool) else self.of(broker, message.actor_name).track

    def succeeds_plainly(self, message: Any) -> bool:
        """Return whether the success of a message is recorded by its end alone."""
        options = message.options
        return message.actor_name in self.plain and "track" not in options and "store_results" not in options


def record_rules() -> tuple[OptionRule, ...]:
    return (
        rule_of_both("store_results", flag),
        rule_of_both("track", flag),
        OptionRule("history", lambda value, actor: _history(value)),
        rule_of_both("result_ttl", lambda value: _milliseconds(value)),
        OptionRule("keep_logs", lambda value, actor: flag(value)),
        OptionRule("search", _searchable),
    )


def _history(value: Any) -> str:
    is_share = type(value) in (int, float) and 0 <= value <= 1
    named = isinstance(value, str) and value in HISTORIES
    return "" if is_share or named else 'write "all", "failures", "none", or a share such as 0.1'


def _milliseconds(value: Any) -> str:
    fits = is_whole(value, most=LONGEST_DELAY_MS) and value > 0
    return "" if fits else f"write milliseconds, from 1 to {LONGEST_DELAY_MS}"


def _searchable(value: Any, actor: Actor[..., Any]) -> str:
    remedy = f'write up to {MOST_SEARCHED} names of arguments, such as ("customer_id",)'
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MOST_SEARCHED:
        return remedy
    if not all(isinstance(name, str) and name for name in value):
        return remedy
    missing = missing_arguments(actor, value)
    return f"{remedy}; {missing}" if missing else ""
