"""A time without a zone is reported in development, once for each argument."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.send_warnings import ZoneWarnings

NAIVE = datetime(2026, 5, 4, 12)  # noqa: DTZ001  the mistake


def test_a_time_without_a_zone_is_reported_once_for_each_argument(caplog: pytest.LogCaptureFixture) -> None:
    broker = StubBroker(middleware=[ZoneWarnings()])

    @dramatiq.actor(broker=broker, actor_name="remind")
    def remind(when: datetime, until: datetime | None = None, name: str = "") -> None: ...

    with caplog.at_level(logging.WARNING, "switchyard.jobs"):
        for args, kwargs in (((NAIVE,), {}), ((NAIVE,), {}), ((NAIVE.replace(tzinfo=UTC),), {"until": NAIVE})):
            broker.emit_before("enqueue", remind.message(*args, **kwargs), None)

    end = "of django.utils"
    assert caplog.messages == [
        f"actor remind: argument when has no zone; send timezone.now(), or timezone.make_aware(when), {end}",
        f"actor remind: argument until has no zone; send timezone.now(), or timezone.make_aware(until), {end}",
    ]


def test_other_arguments_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    broker = StubBroker(middleware=[ZoneWarnings()])

    @dramatiq.actor(broker=broker, actor_name="greet")
    def greet(name: str, when: datetime | None = None) -> None: ...

    for message in (greet.message("Ada"), greet.message("Ada", datetime.now(UTC)), greet.message(when=NAIVE, no=1)):
        broker.emit_before("enqueue", message, None)

    assert caplog.messages == []
