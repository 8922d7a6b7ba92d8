"""Arguments with types in tests without a server: they arrive as in a worker, in every attempt."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import dramatiq
import pytest

from switchyard.testing import assert_enqueued, dead_letters, run_enqueued

pytestmark = pytest.mark.usefixtures("switchyard_broker")


def test_types_arrive_in_each_attempt_and_a_misfit_is_refused_at_send() -> None:
    arrived: list[Any] = []

    @dramatiq.actor(queue_name="default", max_retries=1)
    def book(amount: Decimal, day: date) -> None:
        arrived.append((amount, day))
        raise RuntimeError("always")

    book.send(Decimal("1.10"), day=date(2026, 11, 21))
    assert_enqueued(book, args=(Decimal("1.10"), date(2026, 11, 21)))
    run_enqueued(raises=False, delayed=True)

    assert arrived == [(Decimal("1.10"), date(2026, 11, 21))] * 2
    assert dead_letters()[0].attempts == 2
    with pytest.raises(Exception, match="amount"):
        book.send("no number", day=date(2026, 11, 21))
