"""The order of a job's life: computed in Python once, and compared with the server's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis

from switchyard.broker.redis.scripts import source
from switchyard.broker.stores.history_streams import EndedJob, encode
from switchyard.broker.stores.job_steps import ENDED, sequence

LUA = source("job_write")
FUNCTIONS = "\n".join(
    found[0]
    for name in ("head_of", "place_of")
    if (found := re.search(rf"^local function {name}\(.*?^end$", LUA, re.MULTILINE | re.DOTALL))
)


@pytest.mark.parametrize("state", sorted(ENDED))
@pytest.mark.parametrize("generation", [0, 3])
@pytest.mark.parametrize(
    ("attempt", "started_at", "attempts"), [(1, 5, 1), (0, None, 1), (2, None, 3), (7, 5, 7), (200_000, 5, 100_000)]
)
def test_the_server_places_an_end_as_python_does(
    valkey: redis.Redis, state: str, generation: int, attempt: int, started_at: int | None, attempts: int
) -> None:
    ended = EndedJob("j-1", state, attempt=attempt, generation=generation, started_at=started_at, finished_at=9)

    place: Any = valkey.eval(f"{FUNCTIONS}\nreturn (place_of(ARGV[1]))", 0, encode(ended))

    assert place == sequence(generation=generation, attempts=attempts, state=state)


def test_a_life_goes_on_from_step_to_step() -> None:
    life = [
        sequence(generation=generation, attempts=attempts, state=state)
        for generation in (0, 1)
        for attempts, state in [(0, "queued"), (1, "running"), (1, "retrying"), (2, "running"), (2, "dead")]
    ]

    assert life == sorted(set(life))
