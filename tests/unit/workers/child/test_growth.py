"""The growth of a process is put down to the actors that ran, but for what it loads once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from switchyard.workers.child import hygiene
from switchyard.workers.child.hygiene import LOADED_BYTES, LOADS_S, ChildHygiene

STARTED = 100 * 2**20


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a child that begins now: its size and the time are set by ``at``."""
    watch: Any = object.__new__(ChildHygiene)
    watch._first_bytes = watch._largest_bytes = STARTED
    watch._began_s, grown = 0.0, MagicMock()
    actor = SimpleNamespace(queue_name="default", actor_name="sync")
    watch._broker, watch._metrics = SimpleNamespace(actors={"sync": actor}), SimpleNamespace(grown=grown)

    def at(now_s: float, size: int) -> int:
        monkeypatch.setitem(hygiene.CLOCKS, "monotonic", lambda: now_s)
        monkeypatch.setattr(hygiene, "resident_bytes", lambda pid: STARTED + size)
        watch._note_growth({"sync"})
        return sum(call.args[0] for call in grown.__getitem__.return_value.inc.call_args_list)

    return at


def test_what_it_loads_with_its_first_jobs_is_no_growth(child: Any) -> None:
    assert [child(1.0, 2**20), child(2.0, LOADED_BYTES - 1), child(LOADS_S, LOADED_BYTES - 1)] == [0, 0, 0]


def test_what_comes_later_or_is_more_is_growth(child: Any) -> None:
    assert child(1.0, LOADED_BYTES + 2**20) == LOADED_BYTES + 2**20
    assert child(LOADS_S + 1, LOADED_BYTES + 3 * 2**20) == LOADED_BYTES + 3 * 2**20
