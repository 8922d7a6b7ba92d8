"""A repeated failure is logged at most once a minute, and its recovery once."""

from __future__ import annotations

import errno

import pytest
import structlog
from django.db import DataError, InterfaceError, OperationalError

from switchyard import long_running
from switchyard.broker.errors import BrokerUnavailable


def test_a_failure_that_lasts_is_logged_once_a_minute_and_its_end_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(long_running.time, "monotonic", lambda: clock[0])
    said = long_running.LogThrottle("alerts")

    with structlog.testing.capture_logs() as lines:
        said.succeeded()
        for second in range(130):
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
        said.failed(DataError("value out of range"))

    assert [type(line["exc_info"]) for line in lines] == [ValueError, OSError, DataError]


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
def test_a_failure_with_a_known_remedy_is_one_line(error: Exception, remedy: str) -> None:
    with structlog.testing.capture_logs() as lines:
        long_running.LogThrottle("alerts").failed(error)

    [line] = lines
    assert remedy in line["error"]
    assert "exc_info" not in line
