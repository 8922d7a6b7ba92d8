"""The yard's clock: this process's own while it is right, the server's otherwise."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message

from switchyard.broker.clock import CLOCK, EPOCH, now_ms, utc_now
from switchyard.middleware.envelope import Envelope

MINUTE_S = 61
NEAR_MS = 20_000


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    CLOCK.forget()
    yield
    CLOCK.forget()


@pytest.mark.parametrize("off_s", [0, 0.9, -0.9])
def test_a_clock_that_is_about_right_is_kept(off_s):
    CLOCK.measured(time.time_ns() + int(off_s * 1e9))

    assert not CLOCK.wrong
    before_ms, found_ms, after_ms = int(time.time() * 1_000), now_ms(), time.time() * 1_000
    assert before_ms <= found_ms <= after_ms
    before, found, after = datetime.now(UTC), utc_now(), datetime.now(UTC)
    assert before <= found <= after


@pytest.mark.parametrize("off_s", [MINUTE_S, -MINUTE_S])
def test_a_wrong_clock_gives_way_to_the_servers(off_s):
    server_ns = time.time_ns()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=off_s), tick=True):
        CLOCK.measured(server_ns)

        assert CLOCK.wrong
        assert abs((CLOCK.ahead_ms or 0) - off_s * 1_000) < NEAR_MS
        assert abs(now_ms() - server_ns // 1_000_000) < NEAR_MS
        assert abs(utc_now() - (EPOCH + timedelta(microseconds=server_ns // 1_000))) < timedelta(milliseconds=NEAR_MS)


def test_a_wrong_clock_that_is_set_changes_nothing_before_the_next_measurement():
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1), tick=True) as clock:
        server_ns = time.time_ns() - 3_600 * 10**9
        CLOCK.measured(server_ns)
        clock.shift(timedelta(hours=-1))

        assert abs(now_ms() - server_ns // 1_000_000) < NEAR_MS

        CLOCK.measured(time.time_ns())
        assert not CLOCK.wrong


@pytest.mark.parametrize("off_s", [MINUTE_S, -MINUTE_S])
def test_a_message_of_a_host_with_a_wrong_clock_bears_the_servers_time_once(off_s):
    server_ms, envelope = int(time.time() * 1_000), Envelope()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=off_s), tick=True):
        CLOCK.measured(server_ms * 1_000_000)
        message = Message("work", "job", (), {}, {})
        envelope.before_enqueue(StubBroker(), message, None)
        envelope.before_enqueue(StubBroker(), message, None)  # sent again, as after an outage

    assert abs(message.message_timestamp - server_ms) < NEAR_MS
    assert abs(message.options["enqueued_at"] - server_ms) < NEAR_MS
