"""A repeated failure is logged once in 10 minutes, one of all operations once for them all, and its end once."""

import errno

import pytest
import structlog
from django.db import DataError, InterfaceError, OperationalError

from switchyard import long_running
from switchyard.broker.errors import BrokerUnavailable


@pytest.fixture(autouse=True)
def no_trouble_of_others(monkeypatch):
    """Forget what operations of tests before it failed by: the process keeps it for them all."""
    monkeypatch.setattr(long_running, "_failed_s", {})


def test_a_failure_that_lasts_is_logged_once_in_ten_minutes_and_its_end_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(long_running.time, "monotonic", lambda: clock[0])
    said = long_running.LogThrottle("alerts")

    with structlog.testing.capture_logs() as lines:
        said.succeeded()
        for second in range(1_300):
            clock[0] = float(second)
            said.failed(ValueError("no"))
        said.succeeded()
        said.succeeded()

    assert [line["event"] for line in lines] == ["failing, will be retried"] * 3 + ["works again"]
    assert {line["what"] for line in lines} == {"alerts"}


def test_another_kind_of_failure_is_logged_at_once():
    said = long_running.LogThrottle("alerts")

    with structlog.testing.capture_logs() as lines:
        said.failed(ValueError("no"))
        said.failed(OSError("down"))
        said.failed(ValueError("no"))
        said.failed(DataError("value out of range"))
        said.succeeded()

    assert [type(line["exc_info"]) for line in lines if "exc_info" in line] == [ValueError, OSError, DataError]


def test_a_trouble_of_the_database_or_the_broker_is_logged_once_for_all_operations_and_so_is_its_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(long_running.time, "monotonic", lambda: clock[0])
    first, often, once = (long_running.LogThrottle(name) for name in ("first", "often", "hourly"))
    unmigrated = [OperationalError(f"no such table: switchyard_{number}") for number in range(3)]
    away = [BrokerUnavailable(f"read {number}", "refused") for number in range(3)]

    with structlog.testing.capture_logs() as lines:
        for errors in (unmigrated, away):
            first.failed(errors[0])
            once.failed(errors[1])
            for _ in range(601):
                clock[0] += 1
                often.failed(errors[2])
                first.succeeded()  # it had nothing to ask the server for
            often.succeeded()
            first.succeeded()
            once.succeeded()

    failing, works = "failing, will be retried", "works again"
    said = [(line["event"], line["what"]) for line in lines]
    assert said == [(failing, "first"), (failing, "often"), (works, "often")] * 2


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (BrokerUnavailable("lease", "no server is there", remedy="start one"), "start one"),
        (OperationalError("no such table: switchyard_fact_hour"), "run manage.py migrate"),
        (OperationalError("database or disk is full"), "free space"),
        (OSError(errno.ENOSPC, "No space left on device"), "free space"),
        (InterfaceError("connection already closed"), "check DATABASE_URL"),
    ],
)
def test_a_failure_with_a_known_remedy_is_one_line(error, remedy):
    said = long_running.LogThrottle("alerts")

    with structlog.testing.capture_logs() as lines:
        said.failed(error)
    said.succeeded()

    [line] = lines
    assert remedy in line["error"] and "exc_info" not in line
