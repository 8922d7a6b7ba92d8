from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.operations.findings.finding import Finding
from tests.chaos.server import ServerUnderTest
from tests.conftest import Configure


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
