"""The first cause that ``diagnose`` names in random situations is the made one, and its advice harms nothing."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from switchyard.broker.interface import Facilities
from switchyard.history.models import JobRow
from tests.resumed import resumed
from tests.verdicts.draws.recorded_yard import RecordedYard, declared, forget, named
from tests.verdicts.draws.situations import SITUATIONS, Draw

pytestmark = pytest.mark.django_db(transaction=True)
LEAST_RIGHT = 0.95
# Advice that changes the yard; of another cause it does harm or does nothing.
ACTS = ("too_few_slots", "flood", "wrong_queue", "limit")


def judged(seed: int, number: int, facilities: Facilities, valkey: redis.Redis) -> dict[str, Any]:
    """Make a situation, and return what was made and what is named."""
    valkey.flushdb()
    JobRow.objects.all().delete()
    forget()
    draw = random.Random(f"{seed} {number}")
    drawn = SITUATIONS[number % len(SITUATIONS)](Draw(draw))
    with declared(drawn), pytest.MonkeyPatch.context() as patch:
        yard = RecordedYard(facilities, drawn, draw)
        yard.record(patch)
        yard.fill(patch)
        told = named(facilities)
    first = told[0] if told else None
    cause = first.cause if first else ""
    about = not drawn.about or first is None or drawn.about in (first.queue, first.actor) or drawn.about in first.said
    return {
        "number": number, "made": drawn.cause, "named": cause, "right": cause == drawn.cause and about,
        "harms": any(each.cause in ACTS for each in told[:1]) and cause != drawn.cause, "about": drawn.about,
        "said": [f"{each.cause}: {each.said}" for each in told[:3]],
    }  # fmt: skip


def test_one_situation_of_each_kind_is_named(facilities: Facilities, valkey: redis.Redis) -> None:
    found = [judged(1, number, facilities, valkey) for number in range(len(SITUATIONS))]

    assert [each for each in found if not each["right"]] == []


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_hundred_situations(facilities: Facilities, valkey: redis.Redis, tmp_path: Path) -> None:
    """Resumed where its log ends: ``python -m tests.verdicts.draws --seed 1 --log FILE``."""
    found = resumed("DRAWS", lambda *case: judged(*case, facilities, valkey), tmp_path, count=100)

    for (made, said), times in sorted(Counter((each["made"], each["named"]) for each in found).items()):
        print(f"{made or 'calm':20} named {said or 'nothing':20} {times:4}")
    right = sum(each["right"] for each in found) / len(found)
    print(f"right {right:.3f} of {len(found)}, harmful {sum(each['harms'] for each in found)}")
    assert right >= LEAST_RIGHT
    assert not [each for each in found if each["harms"] or (each["named"] and not each["made"])]
