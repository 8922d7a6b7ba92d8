"""A repeated failure is logged at most once a minute, and its recovery once."""

from __future__ import annotations

import structlog

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
        said.failed(BrokerUnavailable("lease", "no server is there", remedy="start one"))

    assert [type(line.get("exc_info")) for line in lines] == [ValueError, OSError, type(None)]
    assert "start one" in lines[2]["error"]
