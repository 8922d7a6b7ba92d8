"""Tests of a team's actors without a server: ``from apps.platform.testing import in_memory, run_enqueued``.

Nothing of a worker imports this package.
"""

from __future__ import annotations

from apps.platform.testing.asserting import Enqueued, NotEnqueued
from apps.platform.testing.broker import MemoryBroker
from apps.platform.testing.clock import TimeMachineMissing
from apps.platform.testing.redelivery import NotRepeatable, redelivered
from apps.platform.testing.running import EndlessRun, TestedAttempt
from apps.platform.testing.steps import (
    advance,
    assert_enqueued,
    assert_nothing_enqueued,
    dead_letters,
    enqueued,
    run_enqueued,
)
from apps.platform.testing.switch import NotInMemory, in_memory

__all__ = [
    "EndlessRun",
    "Enqueued",
    "MemoryBroker",
    "NotEnqueued",
    "NotInMemory",
    "NotRepeatable",
    "TestedAttempt",
    "TimeMachineMissing",
    "advance",
    "assert_enqueued",
    "assert_nothing_enqueued",
    "dead_letters",
    "enqueued",
    "in_memory",
    "redelivered",
    "run_enqueued",
]
