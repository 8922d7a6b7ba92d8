"""The examples of the pages about workers can be declared, and have the effect that the pages describe."""

from __future__ import annotations

import functools
import traceback
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker

from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.middleware.crashes import Crashes, Poison
from switchyard.middleware.redaction import Redaction
from switchyard.workers.checks import check_yard
from tests.unit.documentation.pages import code_blocks, read


def test_limits_of_the_page_can_be_declared() -> None:
    names: dict[str, Any] = {"Queue": Queue, "Pool": Pool, "MINUTE": 60_000}
    for code in code_blocks(read("docs/how-to/limit-a-worker.md"), "python"):
        exec(code, names)

    yard = Yard(
        (*settings.SWITCHYARD.topology.queues, names["QUEUE"]), (*settings.SWITCHYARD.topology.pools, names["POOL"])
    )

    assert check_yard(yard) == []
    assert yard.pool("imports").recycle_above_bytes < yard.pool("imports").memory_limit_bytes  # type: ignore[operator]


def test_dead_letter_of_the_pages_actor_names_the_last_line_and_hides_what_the_actor_hides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [code] = code_blocks(read("docs/how-to/find-a-poison-message.md"), "python")
    broker = StubBroker(middleware=[Redaction()])
    monkeypatch.setattr("dramatiq.actor", functools.partial(dramatiq.actor, broker=broker))
    exec(code, shown := {"__name__": "shown"})  # type: ignore[var-annotated]
    held = MessageProxy(shown["make_thumbnail"].message(7, "https://example.com/private"))
    held.crashes = 3  # type: ignore[attr-defined]
    held.cause = "killed by SIGSEGV, pid 7, at most 93 MB\ndecoding 7\nread https://example.com/private"  # type: ignore[attr-defined]

    with pytest.raises(Poison) as raised:
        Crashes(transport=None).before_process_message(broker, held)  # type: ignore[arg-type]

    letter = "".join(traceback.format_exception(raised.value))
    assert "The worker's last log lines:\ndecoding 7\nread [redacted]\n" in letter
    for line in (
        "Actor: make_thumbnail",
        "Fingerprint of its arguments:",
        "Its worker ended: killed by SIGSEGV, pid 7",
    ):
        assert line in letter
        assert line.partition(":")[0] in read("docs/how-to/find-a-poison-message.md")
