from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq.message import Message

from switchyard.operations.findings import facts as floods
from tests.unit.operations.yards import facts, lane, pool, state

pytestmark = pytest.mark.usefixtures("small_yard")


@pytest.mark.parametrize(
    ("others", "said"),
    [(100, "100 of the next 100 are customer_id=7"), (0, "")],
    ids=["other actors wait behind them", "nothing else waits"],
)
def test_the_batch_of_one_customer_before_jobs_of_other_actors_is_a_flood(
    others: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = SimpleNamespace(fn=lambda customer_id: None, options={}, actor_name="import_row")
    monkeypatch.setattr(floods.dramatiq, "get_broker", lambda: SimpleNamespace(actors={"import_row": actor}))
    monkeypatch.setattr(floods, "shown_arguments", lambda name, args, kwargs: kwargs)
    first = [message("import_row", customer_id=7) for _ in range(100)]
    last = [message("thank") for _ in range(others)] or first

    def look(family: object, lane: str, place: str, *, cursor: int, limit: int) -> object:
        return SimpleNamespace(items=[SimpleNamespace(message=each) for each in (last if cursor else first)])

    monkeypatch.setattr(floods, "families", lambda names: [None])
    monkeypatch.setattr(floods, "look", look)
    [row] = [
        row for row in facts(state(lane("mail", 300, age_ms=9_000), pool("mail", busy=4))).queue_rows
        if row.queue == "mail"
    ]  # fmt: skip

    found = floods.flood_of(row)

    assert (found.text if found else "") == said


def message(actor: str, **arguments: Any) -> Message[Any]:
    return Message("mail", actor, (), arguments, {})
