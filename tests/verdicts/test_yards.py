"""A situation that fails takes none along: a yard that does not become calm again is replaced by a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.verdicts.watched_yard import WatchedYard, Yards


class StandIn:
    """Becomes calm, unless a test has left it in disorder."""

    disorder = stopped = False

    def settle(self, timeout_s: float) -> None:
        """Wait for nothing."""
        assert not self.disorder, "still said"


def test_a_yard_in_disorder_is_stopped_and_replaced(tmp_path_factory: pytest.TempPathFactory) -> None:
    @contextmanager
    def make(folder: Path) -> Iterator[WatchedYard]:
        made = StandIn()
        yield cast(WatchedYard, made)
        made.stopped = True

    yards = Yards(make, tmp_path_factory)
    first: Any = yards.calm()
    assert yards.calm() is first

    first.disorder = True
    second: Any = yards.calm()

    assert second is not first and first.stopped and not second.stopped
    yards.close()
    assert second.stopped
