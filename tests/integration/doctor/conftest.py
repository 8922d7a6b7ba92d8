from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.operations.findings.finding import Finding
from tests.chaos.server import ServerUnderTest

Configure = Callable[..., None]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Change settings, those of the environment by their names: ``configure(broker_url=…, DEBUG=False)``."""
    changes: list[Any] = []

    def change(**options: Any) -> None:
        own = {name: value for name, value in options.items() if name.islower()}
        rest = {name: value for name, value in options.items() if not name.islower()}
        changes.append(override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, **own), **rest))
        changes[-1].enable()

    yield change
    for change_ in reversed(changes):
        change_.disable()


@pytest.fixture
def own_server(tmp_path: Path, configure: Configure) -> Iterator[ServerUnderTest]:
    """The yard's broker is a server that this test may harm."""
    with ServerUnderTest(tmp_path / "server") as server:
        configure(broker_url=server.url, DEBUG=True)
        yield server


def of(findings: Iterable[Finding], severity: str) -> dict[str, Finding]:
    return {found.code: found for found in findings if found.severity == severity}


@pytest.fixture
def enqueue(valkey: redis.Redis) -> Callable[..., QueueOperations]:
    """Put messages into a queue as they are, and return its family: ``enqueue("slow", Entry("id", b"{}"))``."""

    def put(queue: str, *entries: Entry, **options: Any) -> QueueOperations:
        family = QueueOperations(RedisCalls(valkey), Keys().queue(queue))
        family.enqueue(entries, **options)
        return family

    return put
