"""Tests of a team's actors without a server: ``from switchyard.testing import in_memory, run_enqueued``.

Nothing of a worker imports this package.

It keeps true: what production refuses is refused here, by the same checks and middleware; messages run in the thread
and the transaction of the test; real and memory broker pass one conformance suite.

Files in reading order: ``yard``, ``broker``, ``stores``, ``steps`` (what tests call, and redelivery),
``running`` (and commits). Public: the names of ``__all__``.
"""

from switchyard.testing.broker import MemoryBroker
from switchyard.testing.running import TestedAttempt
from switchyard.testing.steps import (
    NotRepeatable,
    advance,
    assert_enqueued,
    assert_nothing_enqueued,
    dead_letters,
    enqueued,
    redelivered,
    run_enqueued,
)
from switchyard.testing.yard import in_memory

__all__ = [
    "MemoryBroker",
    "NotRepeatable",
    "TestedAttempt",
    "advance",
    "assert_enqueued",
    "assert_nothing_enqueued",
    "dead_letters",
    "enqueued",
    "in_memory",
    "redelivered",
    "run_enqueued",
]
