"""Why a job has not run: random situations on the real broker; page, command and API say the same."""

from __future__ import annotations

import json
import os
import random
from io import StringIO
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from switchyard.broker.admin import places
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause
from switchyard.history.models import JobRow
from switchyard.jobs.passport.why import unfinished, why
from switchyard.jobs.queries import families
from switchyard.outbox.models import OutboxRow
from tests.integration.jobs import probe_actors
from tests.integration.jobs.conftest import MakeHeaders
from tests.integration.jobs.passport.test_page import READER, page_of
from tests.integration.jobs.passport.why_situations import SITUATIONS, Maker

pytestmark = pytest.mark.django_db(transaction=True)
CLOSE_MS = 5
LEAST_NAMED, LEAST_HELD, MOST_HELD = 0.98, 0.85, 0.95


@pytest.fixture
def maker(facilities: Facilities) -> Maker:
    """Makes situations of one draw."""
    return new_maker(facilities, random.Random(5))


def new_maker(facilities: Facilities, draw: random.Random) -> Maker:
    return Maker(facilities, families(["default"])[0], dramatiq.get_broker(), draw)


def judged(seed: int, number: int, facilities: Facilities, valkey: redis.Redis) -> dict[str, Any]:
    """Make a situation, ask why, and return what was wrong."""
    valkey.flushdb()
    for model in (JobRow, OutboxRow):
        model.objects.all().delete()
    draw = random.Random(f"{seed} {number}")
    made = SITUATIONS[number % len(SITUATIONS)](new_maker(facilities, draw))
    known = unfinished(made.job_id)
    found = None if known is None else why(known, at=made.at)
    if found is None:
        return {"number": number, "code": made.code, "named": None, "parts": False, "range": None}
    parts = {name: getattr(found.wait, name) - made.parts.get(name, 0) for name in found.wait.__dataclass_fields__}
    close = all(abs(off) <= CLOSE_MS + made.slack_ms for off in parts.values())
    whole = abs(found.wait.total_ms - sum(made.parts.values())) <= CLOSE_MS
    held = None
    if made.starts_at is not None and found.starts is not None and found.starts.latest is not None:
        held = found.starts.earliest <= made.starts_at <= found.starts.latest
    return {
        "number": number, "code": made.code, "named": found.causes[0].code if found.causes else None,
        "parts": close and whole, "off": parts, "range": held,
    }  # fmt: skip


def test_random_situations_are_named_and_their_parts_add_up(facilities: Facilities, valkey: redis.Redis) -> None:
    found = [judged(1, number, facilities, valkey) for number in range(60)]

    assert [each for each in found if each["named"] != each["code"] or not each["parts"]] == []
    ranges = [each["range"] for each in found if each["range"] is not None]
    assert len(ranges) >= 10 and sum(ranges) >= 0.7 * len(ranges)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_thousand_situations(facilities: Facilities, valkey: redis.Redis, tmp_path: Path) -> None:
    """Resumed where its log ends; see the module of the situations for the command."""
    seed, count = int(os.environ.get("WHY_SEED", "2")), int(os.environ.get("WHY_COUNT", "1000"))
    log = Path(os.environ.get("WHY_LOG") or tmp_path / "why.jsonl")
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with log.open("a") as out:
        for number in range(len(found), count):
            found.append(judged(seed, number, facilities, valkey))
            out.write(f"{json.dumps(found[-1])}\n")
            out.flush()

    named = sum(each["named"] == each["code"] for each in found) / len(found)
    ranges = [each["range"] for each in found if each["range"] is not None]
    held = sum(ranges) / len(ranges)
    print(f"named {named:.3f} of {len(found)}, ranges hold in {held:.3f} of {len(ranges)}")
    assert named >= LEAST_NAMED
    assert all(each["parts"] for each in found)
    assert LEAST_HELD <= held <= MOST_HELD
