"""The letter of a poison message tells how its worker ended, wherever people read it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.middleware.crashes import Poison
from tests.factories.commands import output_of

pytestmark = pytest.mark.django_db
CAUSE = "killed by SIGSEGV in ways.py:43 crash, pid 7, at most 83 MB\nabout to crash <at 3>\nreading"
TOLD = (
    "killed by SIGSEGV in ways.py:43 crash, pid 7, at most 83 MB",
    "Actor: fail_always",
    "Fingerprint of its arguments: 0123456789abcdef",
    "last log lines:\nabout to crash <at 3>\nreading",
)


@pytest.fixture
def poisoned(bury: Callable[..., Letter]) -> Letter:
    """A letter as the middleware writes it."""
    error = Poison("fail_always", 3, CAUSE, arguments="0123456789abcdef")
    told: dict[str, Any] = {"traceback": "".join(traceback.format_exception(error)), "error": str(error)}
    return bury(reason="poison", exception="Poison", **told)


def test_command_shows_how_the_worker_of_a_poison_message_ended(poisoned: Letter) -> None:
    shown = output_of("deadletters", "show", poisoned.id)

    assert [line for line in TOLD if line not in shown] == []
