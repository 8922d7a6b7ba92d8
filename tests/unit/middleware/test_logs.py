"""Logs are lines: what stands in a message cannot forge one, nor steer a terminal, nor show arguments."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message

from switchyard.middleware import logs
from switchyard.middleware.outcomes import Outcome, decide
from tests.waiting import wait_for

NASTY = "actor\x1b[2J\nforged line\r\u202e"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


@pytest.fixture
def middleware() -> Any:
    return logs.Logs()


def _message() -> MessageProxy:
    return MessageProxy(Message("work", "mail", (), {}, {"attempts": 2}))


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_control_characters_are_shown_in_a_terminals_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console")

    logging.getLogger("other").warning("got %s", NASTY)
    structlog.stdlib.get_logger("ours").info("started", actor=NASTY)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("forged line" in line for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_that_cannot_be_shown_is_logged(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not to be shown")

        __repr__ = __str__

    logs.configure(log_format)

    structlog.stdlib.get_logger("ours").error("dead", exc_info=Unshowable())

    assert "dead" in capsys.readouterr().err


def test_a_parked_message_is_not_said_to_be_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    stub_broker = StubBroker()
    logs.configure("json")
    worker = Worker(stub_broker, worker_timeout=10)
    stub_broker.declare_queue("work")

    worker.start()
    stub_broker.enqueue(Message("work", "nobody", (), {}, {}))
    wait_for(lambda: stub_broker.dead_letters)
    logging.getLogger("dramatiq.worker.ConsumerThread(work)").error("something else")
    worker.stop()

    told = [line["event"] for line in _lines(capsys) if "ConsumerThread(work)" in line["logger"]]
    assert told == ["something else"]


def test_a_traceback_keeps_its_lines_but_no_control_characters_nor_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("console")

    password = "hunter2"
    try:
        raise ValueError(f"bad\x1b[2J {len(password)}")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")

    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "bad\\x1b[2J 7" in printed
    assert "\x1b[2J" not in printed
    assert "hunter2" not in printed.replace('password = "hunter2"', "")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_long_traceback_keeps_its_beginning_and_its_end(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(log_format)

    try:
        raise ValueError("x" * 1_000_000 + " the end")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")

    printed = capsys.readouterr().err
    assert len(printed) < 20_000
    assert "Traceback" in printed
    assert "characters left out" in printed
    assert "the end" in printed


def test_what_is_logged_meanwhile_names_its_job_and_what_the_actor_bound(
    capsys: pytest.CaptureFixture[str], middleware: Any
) -> None:
    logs.configure("json")
    message = _message()

    middleware.before_process_message(None, message)
    structlog.contextvars.bind_contextvars(customer=7)
    structlog.stdlib.get_logger("ours").info("working")
    logging.getLogger("other").info("working")
    middleware.after_process_message(None, message)
    structlog.stdlib.get_logger("ours").info("idle")

    *during, ended, idle = _lines(capsys)
    names = {"job_id": message.message_id, "actor": "mail", "queue": "work", "attempt": 3}
    assert [{**line, **names, "customer": 7} for line in (*during, ended)] == [*during, ended]
    assert [line["event"] for line in (*during, ended)] == ["working", "working", "succeeded"]
    assert not {*names, "customer"} & {*idle}


def test_a_job_whose_end_was_interrupted_lends_its_names_to_nobody(
    capsys: pytest.CaptureFixture[str], middleware: Any
) -> None:
    logs.configure("json")
    second = _message()

    middleware.before_process_message(None, _message())
    structlog.contextvars.bind_contextvars(customer=7)
    middleware.before_process_message(None, second)
    middleware.after_process_message(None, second)

    (line,) = _lines(capsys)
    assert line["job_id"] == second.message_id
    assert "customer" not in line


@pytest.mark.parametrize(
    ("outcome", "events"),
    [
        (Outcome("succeeded"), []),
        (Outcome("cancelled"), []),
        (Outcome("retried", delay_ms=5, exception=ValueError("no")), ["retried"]),
        (Outcome("dead", "exhausted", exception=ValueError("no")), ["dead"]),
    ],
)
def test_at_warning_only_failures_are_logged_and_nothing_is_made_of_the_rest(
    outcome: Outcome, events: list[str], capsys: pytest.CaptureFixture[str], middleware: Any, monkeypatch: Any
) -> None:
    logs.configure("json", level=logging.WARNING)
    made: list[str] = []
    names_of: Any = logs._names
    monkeypatch.setattr(logs, "_names", lambda message: made.append(message.message_id) or names_of(message))
    message = _message()

    middleware.before_process_message(None, message)
    decide(message, outcome)
    middleware.after_process_message(None, message)

    assert [line["event"] for line in _lines(capsys)] == events
    assert bool(made) == bool(events)


@pytest.mark.parametrize(("attempts", "development", "shown"), [(0, True, True), (1, True, False), (0, False, False)])
def test_the_first_failure_shows_its_traceback_in_development_only(
    attempts: int, development: bool, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("console")
    entry = logs.Logs(tracebacks=development)
    message = MessageProxy(Message("work", "mail", (), {}, {"attempts": attempts}))
    try:
        raise KeyError("missing")
    except KeyError as error:
        failure = error
    decide(message, Outcome("retried", delay_ms=5, exception=failure))

    entry.before_process_message(StubBroker(), message)
    entry.after_process_message(StubBroker(), message, exception=failure)

    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if "retried" in line]
    assert "raised=KeyError" in line
    assert ("Traceback (most recent call last)" in said, "test_logs.py" in said) == (shown, shown)


def test_a_refused_request_is_logged_in_one_line_and_a_failed_one_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("console")
    try:
        raise PermissionError("not yours")
    except PermissionError:
        logging.getLogger("django.request").warning("Forbidden (Permission denied): %s", "/x", exc_info=True)
        logging.getLogger("django.security.DisallowedHost").error("Invalid HTTP_HOST header", exc_info=True)
        refused = capsys.readouterr().err.splitlines()
        logging.getLogger("django.request").error("Internal Server Error: %s", "/x", exc_info=True)
        failed = capsys.readouterr().err.splitlines()

    assert len(refused) == 2
    assert any("PermissionError" in line for line in failed)
