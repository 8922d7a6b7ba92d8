from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import attach
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from tests.factories.endpoints import Answering, answers_of


class Receiver:
    """A real HTTP receiver. ``answers``: statuses for the next requests, then 204; ``hang``: held until set."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.asked: list[str] = []
        self.words = b""
        self.answers: list[int] = []
        self.hang: threading.Event | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/canary-secret?key=canary-secret"

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Receiver]:
        receiver = self

        class Handler(Answering):
            def do_POST(self) -> None:
                body = self.body()
                if receiver.hang is not None:
                    receiver.hang.wait(30)
                status = receiver.answers.pop(0) if receiver.answers else 204
                if status < 300:
                    receiver.bodies.append(json.loads(body))
                    receiver.paths.append(self.path)
                    receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.answer(status, receiver.words)

            def do_GET(self) -> None:
                receiver.asked.append(self.path)
                self.answer(receiver.answers.pop(0) if receiver.answers else 204)

        with answers_of(Handler) as self.port:
            yield self


@pytest.fixture
def receiver():
    with Receiver().receiving() as made:
        yield made


second_receiver = receiver


@pytest.fixture
def groups(valkey, facilities):
    """The yard's alert groups, with windows of a fifth of a second."""
    made = AlertGroups(RedisCalls(valkey), Keys("alerts-test"), window_ms=200)
    attach(dramatiq.get_broker(), dataclasses.replace(facilities, alerts=made))
    yield made
    attach(dramatiq.get_broker(), facilities)


def fact(**changes: Any) -> AlertFact:
    """Return something to alert of."""
    values = {
        "fingerprint": "f00dfacef00dface", "kind": "dead_letter", "title": "generate_report gave up: KeyError",
        "detail": "exhausted after 6 attempts in slow: 'vat_rate'", "queue": "slow", "actor": "generate_report",
        "at": time.time_ns() // 1_000_000,
    }  # fmt: skip
    return AlertFact(**(values | changes))
