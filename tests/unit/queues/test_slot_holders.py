"""Holders of a queue's slots: jobs of its retries that run in another pool hold none of them."""

from __future__ import annotations

from switchyard.queues.queries import holders_of
from tests.unit.operations.yards import running


def test_slots_of_a_pool_for_retries_are_not_counted_among_the_queues() -> None:
    jobs = [running("bad_import", "retries")] * 6 + [running("sync", "mail"), running("bad_import", "mail")] * 2
    first, second, third = holders_of("mail", ("mail",), [*jobs, running("old", "retries")])

    assert (first.actor, first.holding(8)) == ("bad_import", "holds 2 of 8 slots and 6 of other pools")
    assert (second.actor, second.holding(8)) == ("sync", "holds 2 of 8 slots")
    assert (third.actor, third.here) == ("old", 0)
