"""Commands of findings name the server that they are about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from apps.platform.operations.findings import failures
from apps.platform.operations.findings.finding import Finding

CLUSTER = "redis+cluster://user:secret@10.0.0.1:6379,10.0.0.2:6379"
COMMAND = "valkey-cli CONFIG SET appendonly yes"


@pytest.mark.parametrize(
    ("url", "seen", "expected"),
    [
        (CLUSTER, "node 10.0.0.2:6380: it blocks", "valkey-cli -h 10.0.0.2 -p 6380 CONFIG SET appendonly yes"),
        (CLUSTER, "a lock is left", "valkey-cli -c -h 10.0.0.1 -p 6379 CONFIG SET appendonly yes"),
        ("unix:///run/v.sock", "it blocks", "valkey-cli -s /run/v.sock CONFIG SET appendonly yes"),
    ],
)
def test_a_command_about_one_node_goes_to_that_node(
    url: str, seen: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "switchyard_settings", lambda: SimpleNamespace(broker_url=url))

    found = failures.copyable(Finding("broker", "stalls", "warning", seen, next=COMMAND))

    assert found.next == expected
