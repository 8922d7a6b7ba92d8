"""Why a job has not run: random situations on the real broker; page, command and API say the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client

from switchyard.broker.admin import browse
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause
from switchyard.history.models import JobRow
from switchyard.jobs.passport.why import unfinished, why
from switchyard.jobs.queries import families
from switchyard.outbox.models import OutboxRow
from tests.factories.commands import json_of, output_of
from tests.integration.jobs import probe_actors
from tests.integration.jobs.conftest import MakeHeaders
from tests.integration.jobs.passport.test_page import READER, page_of
from tests.integration.jobs.passport.why_situations import SITUATIONS, Maker
from tests.resumed import resumed

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
    parts = {name: ms - made.parts.get(name, 0) for name, ms in found.wait.items()}
    close = all(abs(off) <= CLOSE_MS + made.slack_ms for off in parts.values())
    whole = abs(found.waited_ms - sum(made.parts.values())) <= CLOSE_MS
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
    found = resumed("WHY", lambda *case: judged(*case, facilities, valkey), tmp_path, count=1_000)

    named = sum(each["named"] == each["code"] for each in found) / len(found)
    ranges = [each["range"] for each in found if each["range"] is not None]
    held = sum(ranges) / len(ranges)
    print(f"named {named:.3f} of {len(found)}, ranges hold in {held:.3f} of {len(ranges)}")
    assert named >= LEAST_NAMED
    assert all(each["parts"] for each in found)
    assert LEAST_HELD <= held <= MOST_HELD


def test_a_place_in_the_middle_of_a_long_queue_is_not_searched_for(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browse, "COMPARED", 10)
    ids = [maker.send() for _ in range(50)]

    def said(job_id: str) -> str:
        found = why(unfinished(job_id))  # type: ignore[arg-type]
        return found.causes[-1].text if found is not None else ""

    assert said(ids[7]).startswith("7 jobs of default start before it: 7 × probe_note.")
    assert said(ids[25]).startswith("more than 10 jobs of default start before it")
    assert said(ids[48]).startswith("48 jobs of default start before it: 48 × probe_note.")


def test_it_costs_at_most_eleven_round_trips(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.run([now_ms()])
    for _ in range(20):
        maker.send()
    job = maker.send()
    maker.report("quieted")
    known = unfinished(job)
    trips = []
    for name in ("call", "command", "pipeline"):
        real = getattr(RedisCalls, name)

        def counted(self: RedisCalls, *args: Any, real: Any = real, **options: Any) -> Any:
            trips.append(args)
            return real(self, *args, **options)

        monkeypatch.setattr(RedisCalls, name, counted)

    assert known is not None and why(known) is not None
    assert 0 < len(trips) <= 11


def test_page_command_and_api_say_the_same_in_one_order(
    maker: Maker, headers: MakeHeaders, admin_client: Client
) -> None:
    administration.pause(maker.family, by="a.lind", reason="an import")
    administration.pause_actor(maker.family, ActorPause(0, 0, 0, "probe_note", "value", 1, 3, by="m.oy"))
    job = maker.send("probe_note", 3, delay=3_600_000)
    api = Client(headers=headers("operate"))

    said, printed = json_of("jobs", "why", job), output_of("jobs", "why", job)
    answer = api.get(f"/api/v1/jobs/{job}/why")
    page = page_of(job, *READER)
    hidden = page_of(job, "view_job")

    assert [each["code"] for each in said["causes"]] == ["scheduled", "value_paused", "queue_paused", "pool_down"]
    assert said["starts"] is None and said["wait"]["scheduled_ms"] == said["wait"]["total_ms"] > 0
    assert [each["code"] for each in answer.json()["causes"]] == [each["code"] for each in said["causes"]]
    assert "probe_note with value=3 is paused. Paused by m.oy" in page and "Its queue default is paused" in page
    assert "probe_note with value=3 is paused. Paused by m.oy" in printed
    assert "value=3" not in hidden and "probe_note with such an argument is paused" in hidden
    # The token's owner has no right to view arguments.
    assert "value=3" not in answer.content.decode()


def test_a_job_that_has_ended_or_is_unknown_has_no_reasons(maker: Maker, headers: MakeHeaders, run_worker: Any) -> None:
    job = probe_actors.add.send(1, 2).message_id
    with run_worker("default"):
        probe_actors.add.broker.join("default")
    api = Client(headers=headers("operate"))

    assert api.get(f"/api/v1/jobs/{job}/why").status_code in (404, 409)
    assert api.get("/api/v1/jobs/ffffffff-ffff-4fff-8fff-ffffffffffff/why").status_code == 404
    with pytest.raises(CommandError, match="no job has this id"):
        call_command("switchyard", "jobs", "why", "ffffffff-ffff-4fff-8fff-ffffffffffff")


def test_a_job_without_a_record_has_reasons_too(maker: Maker) -> None:
    job = probe_actors.note.send_with_options(args=(1,), track=False).message_id
    administration.pause(maker.family, by="a.lind")

    assert "Its queue default is paused. Paused by a.lind" in output_of("jobs", "why", job)
