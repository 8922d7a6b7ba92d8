"""A failover is in the log of each process, with both masters."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from switchyard.broker.redis.sentinel import Sentinels, parse


class Answering(Sentinels):
    """Sentinels whose answers are given."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        super().__init__(parse("redis+sentinel://a:1/yard/0"), {})
        self.answers = answers

    def ask(self, *args: Any) -> list[Any]:
        """Return the next answer: the number of the failover, and the host."""
        epoch, host = self.answers.pop(0)
        return [[b"config-epoch", b"%d" % epoch], [host.encode(), b"6379"]]


def test_a_new_master_is_named_beside_the_former_one(caplog: pytest.LogCaptureFixture) -> None:
    sentinels = Answering([(1, "valkey-1"), (1, "valkey-1"), (2, "valkey-2")])

    with caplog.at_level(logging.INFO, logger="switchyard.broker"):
        for _ in range(3):
            sentinels.locate()

    assert caplog.messages == ["broker: the sentinels name valkey-2:6379 as the master, in place of valkey-1:6379"]
    assert sentinels.changes == 1
