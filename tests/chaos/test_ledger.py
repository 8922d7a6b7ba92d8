"""The account of a history: each counter counts what it says, shown on histories that were made up."""

import pytest

from tests.chaos.ledger import Entry, account

GOOD = ["attempted a", "accepted a", "started a", "completed a"]


def history(*lines: str) -> list[Entry]:
    """Return the entries of lines like ``accepted a``."""
    return [Entry(*line.split(), pid=1, at_s=float(number)) for number, line in enumerate(lines)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("lines", "counter", "jobs"),
    [
        (["attempted b", "refused b"], "attempted", ("a", "b")),
        (["attempted b", "accepted b", "completed b"], "accepted", ("a", "b")),
        (["attempted b", "accepted b", "completed b"], "completed", ("a", "b")),
        (["attempted b", "accepted b", "started b"], "lost", ("b",)),
        (["attempted b", "accepted b", "started b", "buried b"], "dead", ("b",)),
        (["completed a", "completed a"], "duplicated", ("a", "a")),
        (["started b", "completed b"], "unexpected", ("b",)),
        (["attempted b", "refused b", "completed b"], "recovered", ("b",)),
    ],
)
def test_a_forged_history_moves_its_counter(lines, counter, jobs):
    found = account(history(*GOOD, *lines))

    assert getattr(found, counter) == jobs
