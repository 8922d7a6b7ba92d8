"""Why a job has not run: random situations on the real broker; page, command and API say the same.

The clock is the time for which the question is asked, up to an hour ahead of the server's. A situation tells what made
the job wait, for how long in each part, and when it starts where a simulated pool goes on from there.
A thousand of them, resumable: ``python -m tests.integration.jobs.passport --seed 1 --log FILE``.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client
from dramatiq.message import Message

from switchyard.broker.admin import browse
from switchyard.broker.admin.purge import set_aside
from switchyard.broker.clock import now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration, codec, limits
from switchyard.broker.queue.limits import Circuit, note_circuit
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause
from switchyard.broker.stores.history_streams import LiveJob, live_step
from switchyard.broker.stores.pool_reports import PoolReport, SilentChild
from switchyard.broker.topology import Dependency
from switchyard.history.models import JobRow
from switchyard.jobs.passport.why import unfinished, why
from switchyard.jobs.queries import families
from switchyard.outbox.models import OutboxRow
from tests.factories.commands import json_of, output_of
from tests.factories.slots import worked
from tests.integration.jobs import probe_actors
from tests.integration.jobs.passport.test_page import READER, page_of
from tests.integration.jobs.probe_actors import note
from tests.resumed import resumed

pytestmark = pytest.mark.django_db(transaction=True)
CLOSE_MS = 5
LEAST_NAMED, LEAST_HELD, MOST_HELD = 0.98, 0.85, 0.95


@pytest.fixture
def maker(facilities):
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


def test_random_situations_are_named_and_their_parts_add_up(facilities, valkey):
    found = [judged(1, number, facilities, valkey) for number in range(60)]

    assert [each for each in found if each["named"] != each["code"] or not each["parts"]] == []
    ranges = [each["range"] for each in found if each["range"] is not None]
    assert len(ranges) >= 10 and sum(ranges) >= 0.7 * len(ranges)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_thousand_situations(facilities, valkey, tmp_path):
    """Resumed where its log ends."""
    found = resumed("WHY", lambda *case: judged(*case, facilities, valkey), tmp_path, count=1_000)

    named = sum(each["named"] == each["code"] for each in found) / len(found)
    ranges = [each["range"] for each in found if each["range"] is not None]
    held = sum(ranges) / len(ranges)
    print(f"named {named:.3f} of {len(found)}, ranges hold in {held:.3f} of {len(ranges)}")
    assert named >= LEAST_NAMED
    assert all(each["parts"] for each in found)
    assert LEAST_HELD <= held <= MOST_HELD


def test_a_place_deep_in_a_long_queue_is_not_searched_for(maker, monkeypatch):
    monkeypatch.setattr(browse, "COMPARED", 10)
    ids = [maker.send() for _ in range(50)]

    def said(job_id: str) -> str:
        found = why(unfinished(job_id))  # type: ignore[arg-type]
        return found.causes[-1].text if found is not None else ""

    assert said(ids[7]).startswith("7 jobs of default start before it: 7 × probe_note.")
    assert said(ids[25]).startswith("more than 10 jobs of default start before it")
    assert said(ids[48]).startswith("48 jobs of default start before it: 48 × probe_note.")


def test_it_costs_at_most_eleven_round_trips(maker, monkeypatch):
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


def test_page_command_and_api_say_the_same_in_order(maker, headers, admin_client):
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


def test_a_job_that_has_ended_or_is_unknown_has_no_reasons(maker, headers, run_worker):
    job = probe_actors.add.send(1, 2).message_id
    with run_worker("default"):
        probe_actors.add.broker.join("default")
    api = Client(headers=headers("operate"))

    assert api.get(f"/api/v1/jobs/{job}/why").status_code in (404, 409)
    assert api.get("/api/v1/jobs/ffffffff-ffff-4fff-8fff-ffffffffffff/why").status_code == 404
    with pytest.raises(CommandError, match="no job has this id"):
        call_command("switchyard", "jobs", "why", "ffffffff-ffff-4fff-8fff-ffffffffffff")


def test_a_job_without_a_record_has_reasons_too(maker):
    job = probe_actors.note.send_with_options(args=(1,), track=False).message_id
    administration.pause(maker.family, by="a.lind")

    assert "Its queue default is paused. Paused by a.lind" in output_of("jobs", "why", job)


QUEUE, WORKER = "default", "default.h1.77.abcdefab.0.1"
OWNER = f"{WORKER}/live"
HOUR_MS = 3_600_000
WORDS = {"up": "", "starting": "pool_starting", "draining": "pool_draining", "quieted": "pool_quieted"}


@dataclass
class Made:
    """A situation.

    Args:
        code: Of its first cause.
        parts: Of the wait up to ``at``, ms; those that are not named are 0.
        slack_ms: How long it took to make it: by so much a boundary between two parts may differ.
        starts_at: When the job starts, ms since the epoch; ``None`` where nothing is simulated.
    """

    code: str
    job_id: str
    at: int
    parts: dict[str, int]
    slack_ms: int = 0
    starts_at: int | None = None


@dataclass
class Maker:
    """Makes situations in an empty queue of the project's own yard."""

    facilities: Facilities
    family: QueueOperations
    broker: Any
    draw: random.Random
    requests: int = 0
    began: int = field(default_factory=now_ms)

    def __post_init__(self) -> None:
        self.at = self.began + self.draw.randint(1_000, HOUR_MS)
        self.age_ms = self.draw.randint(100, 5 * HOUR_MS)

    @property
    def sent_at(self) -> int:
        return self.began - self.age_ms

    def send(self, actor: str = "probe_note", *args: Any, delay: int | None = None, sent_at: int | None = None) -> str:
        message: Message[Any] = Message(
            QUEUE, actor, args or (self.draw.randint(1, 9),), {}, {"enqueued_at": sent_at or self.sent_at}
        )
        self.broker.enqueue(message, delay=delay)
        return message.message_id

    def fetch(self, count: int = 1) -> list[HeldMessage]:
        self.requests += 1
        self.family.join(OWNER, lease_ms=10 * HOUR_MS)
        grants = self.family.fetch(OWNER, count, request=self.requests).grants
        held = []
        for grant in grants:
            message = codec.decode(grant.body or b"", message_id=str(grant.lease.id, "ascii"), lane=QUEUE)
            held.append(HeldMessage(message, grant.lease, self.family))
        return held

    def run(self, started: list[int]) -> None:
        """Have a worker run jobs since some times."""
        for _ in started:
            self.send("probe_add", 1, 2)
        held = self.fetch(len(started))
        steps = [
            LiveJob(each.message_id, "running", attempt=1, started_at=at, lane=QUEUE, pool="default", worker=WORKER)
            for each, at in zip(held, started, strict=True)
        ]
        if steps:
            self.facilities.records.write([live_step(QUEUE, step) for step in steps])

    def report(self, state: str = "up", slots: int = 8, silent: tuple[SilentChild, ...] = ()) -> None:
        now = now_ms()
        told = PoolReport("default", "h1", 77, "threads", slots, slots, now, now, state, silent=list(silent))
        self.facilities.pools.write(told)

    def wait(self, ms: int) -> None:
        time.sleep(ms / 1_000)  # what lies between is the part that is measured

    def waits(self, **parts: int) -> dict[str, int]:
        """Return the parts of a wait that a part named 0 fills up to the whole."""
        whole = self.at - self.sent_at
        [open_] = [name for name, ms in parts.items() if ms < 0]
        return {**parts, open_: whole - sum(ms for ms in parts.values() if ms > 0)}


Situation = Callable[[Maker], Made]


def usual_waits(made: Maker, wait_ms: Callable[[], float], *, lane: str = QUEUE) -> None:
    rows = []
    for place in range(made.draw.randint(40, 200)):
        end = made.at - 50 * (place + 1)
        rows.append(row(end - 20, end, lane=lane, wait_ms=int(wait_ms())))
    JobRow.objects.bulk_create(rows)


def row(started_at: int, finished_at: int, *, lane: str = QUEUE, wait_ms: int | None = None) -> JobRow:
    return JobRow(
        job_id=str(uuid.uuid4()), sequence=1, state="succeeded", actor="probe_add", queue=QUEUE, lane=lane, attempts=1,
        generation=0, started_at=started_at, finished_at=finished_at, wait_ms=wait_ms,
    )  # fmt: skip


def some_waits(made: Maker) -> Callable[[], float]:
    mean = made.draw.uniform(20, 20_000)
    return made.draw.choice((lambda: made.draw.expovariate(1 / mean), lambda: made.draw.lognormvariate(0, 1) * mean))


def scheduled(made: Maker) -> Made:
    made.age_ms = 0
    due_in = made.at - made.began + made.draw.randint(1_000, HOUR_MS)
    before = now_ms()
    made.began = before
    job = made.send(delay=due_in)
    waits = some_waits(made)
    usual_waits(made, waits)
    if made.draw.random() < 0.3:  # a job meets it only once it is due
        made.report("draining")
    else:
        made.report()
    due = before + due_in
    starts = due + int(waits())
    return Made("scheduled", job, made.at, made.waits(scheduled_ms=-1), now_ms() - before, starts)


def retry(made: Maker) -> Made:
    job, before = made.send(), now_ms()
    [held] = made.fetch()
    backoff = made.at - now_ms() + made.draw.randint(1_000, HOUR_MS)
    started, failed = now_ms(), now_ms()
    made.facilities.transport.divert(held, lane=f"{QUEUE}-retry", delay_ms=backoff, options={"attempts": 1})
    step = LiveJob(
        job, "retrying", attempt=1, started_at=started - 5, next_attempt_at=failed + backoff, lane=QUEUE, pool="default"
    )
    made.facilities.records.write([live_step(QUEUE, step)])
    made.report()
    parts = made.waits(attempts_ms=failed - made.sent_at, scheduled_ms=-1)
    return Made("retry", job, made.at, parts, now_ms() - before)


def rate_limit(made: Maker) -> Made:
    job, before = made.send(), now_ms()
    [held] = made.fetch()
    delay = made.at - now_ms() + made.draw.randint(1_000, HOUR_MS)
    at = now_ms()
    made.facilities.transport.defer(held, delay_ms=delay, options={"deferred_by": "rate_limit"})
    made.report()
    parts = made.waits(waiting_ms=at - made.sent_at, put_off_ms=-1)
    return Made("rate_limit", job, made.at, parts, now_ms() - before)


def parked(made: Maker) -> Made:
    job, before = made.send("probe_of_another_release"), now_ms()
    [held] = made.fetch()
    at = now_ms()
    delay = made.facilities.transport.park(held, call='["probe_of_another_release",1]', parked_ms=0, options={})
    made.at = at + made.draw.randint(1, delay - 50)
    made.report()
    return Made("parked", job, made.at, made.waits(waiting_ms=at - made.sent_at, put_off_ms=-1), now_ms() - before)


def queue_paused(made: Maker) -> Made:
    job = made.send()
    made.wait(made.draw.randint(0, 20))
    before = now_ms()
    until = made.draw.choice((0, made.at + made.draw.randint(1_000, HOUR_MS)))
    administration.pause(made.family, until_ms=until, by="a.lind", reason="an import")
    made.report(made.draw.choice(("up", "draining")))
    parts = made.waits(waiting_ms=before - made.sent_at, put_off_ms=-1)
    return Made("queue_paused", job, made.at, parts, now_ms() - before)


def queue_paused_after(made: Maker) -> Made:
    """A job that was sent to a queue that is paused already."""
    administration.pause(made.family, by="a.lind")
    made.wait(made.draw.randint(2, 20))
    made.began, made.age_ms = now_ms(), 0
    job = made.send()
    return Made("queue_paused", job, made.at, made.waits(put_off_ms=-1), now_ms() - made.began)


def paused(made: Maker, pause: ActorPause, code: str, *args: Any) -> Made:
    """A job whose actor was paused: it is put off by a fetch, or waits for one still."""
    administration.pause_actor(made.family, ActorPause(0, 0, 0, "probe_add", by="a.lind"))
    job = made.send("probe_note", *args)
    made.wait(made.draw.randint(0, 20))
    before = now_ms()
    administration.pause_actor(made.family, pause)
    return put_off(made, code, job, before)


def put_off(made: Maker, code: str, job: str, before: int | None = None) -> Made:
    """Return a job that is put off, perhaps by a fetch; without a moment before which it was, certainly by one."""
    if before is None or made.draw.random() < 0.6:
        made.wait(made.draw.randint(0, 20))
        before = now_ms()
        made.fetch()
    after = now_ms()
    made.report()
    return Made(code, job, made.at, made.waits(waiting_ms=before - made.sent_at, put_off_ms=-1), after - before)


def actor_paused(made: Maker) -> Made:
    until = made.draw.choice((0, made.at + made.draw.randint(1_000, HOUR_MS)))
    return paused(made, ActorPause(0, until, 0, "probe_note", by="a.lind", reason="a bug"), "actor_paused")


def value_paused(made: Maker) -> Made:
    value = made.draw.choice((7, "acme", True, 0.5))
    return paused(made, ActorPause(0, 0, 0, "probe_note", "value", 1, value, by="a.lind"), "value_paused", value)


def limited(made: Maker) -> Made:
    """A job that a fetch puts off, because another one has the only place of its limit."""
    options = made.draw.choice(({"concurrency": 1}, {"concurrency": "1 per value"}, {"ordered_by": "value"}))
    limits.declare(made.family, [SimpleNamespace(actor_name="probe_note", options=options, fn=note.fn)])  # type: ignore[list-item]
    made.send("probe_note", 7)
    made.fetch()
    job = made.send("probe_note", 7)
    return put_off(made, "order" if "ordered_by" in options else "concurrency", job)


def circuit_open(made: Maker) -> Made:
    argument = made.draw.choice(("", "value"))
    calls = {"probe_note": 1} if argument else {"probe_note": 0}
    circuit = Circuit(Dependency("stripe"), 60_000, calls, argument, 3 if argument else None)
    job = made.send("probe_note", 3)
    made.wait(made.draw.randint(0, 20))
    before = now_ms()
    until = now_ms() + 2 * HOUR_MS
    note_circuit(made.family, circuit, "another", "failed", until_ms=until, reason="ConnectionError")
    return put_off(made, "circuit_open", job, before)


def in_outbox(made: Maker) -> Made:
    rows = [outbox_row(made, order_key=key) for key in made.draw.choice((("",), ("", ""), ("note value=1",)))]
    return Made("outbox", rows[-1].job_id, made.at, made.waits(outbox_ms=-1))


def behind_in_outbox(made: Maker) -> Made:
    outbox_row(made, order_key="note value=1")
    last = outbox_row(made, order_key="note value=1")
    return Made("outbox_order", last.job_id, made.at, made.waits(outbox_ms=-1))


def outbox_row(made: Maker, *, order_key: str) -> OutboxRow:
    message: Message[Any] = Message(QUEUE, "probe_note", (1,), {}, {"enqueued_at": made.sent_at})
    body = codec.encode(message, grown=True)
    return OutboxRow.objects.create(
        job_id=message.message_id, queue=QUEUE, order_key=order_key, body=body, created_ms=made.sent_at
    )


def pool_away(made: Maker) -> Made:
    state = made.draw.choice(("", "starting", "draining", "quieted", "paused"))
    if state:
        made.report(state)
    code = {"": "pool_down", "paused": "pool_paused"}.get(state) or WORDS[state]
    return Made(code, made.send(), made.at, made.waits(waiting_ms=-1))


def behind(made: Maker) -> Made:
    work = worked(made.draw, most_starts=120, most_ahead=60)
    JobRow.objects.bulk_create([row(made.at + start, made.at + end) for start, end in work.ended])
    made.run([made.at + start for start in work.running])
    for _ in range(work.ahead):
        made.send("probe_add", 1, 2)
    job = made.send()
    for _ in range(made.draw.randint(0, 3)):
        made.send("probe_add", 1, 2)
    made.report(slots=work.slots)
    code = "behind" if work.ahead else "slots_busy"
    return Made(code, job, made.at, made.waits(waiting_ms=-1), 0, made.at + work.starts_at)


def next_one(made: Maker) -> Made:
    made.run([made.began])
    job = made.send()
    made.report(slots=4)
    return Made("next", job, made.at, made.waits(waiting_ms=-1))


def fetched(made: Maker) -> Made:
    job = made.send()
    made.fetch()
    silent = made.draw.random() < 0.5
    child = SilentChild(78, 0, 9_000, {"another": made.began})
    made.report(silent=(child,) if silent else ())
    return Made("silent" if silent else "fetched", job, made.at, made.waits(waiting_ms=-1))


def behind_silence(made: Maker) -> Made:
    made.run([made.began - 100 * number for number in range(20)])
    job = made.send()
    made.report(slots=8, silent=(SilentChild(78, 0, 9_000, {"another": made.began}),))
    return Made("silent", job, made.at, made.waits(waiting_ms=-1))


def purged(made: Maker) -> Made:
    job = made.send()
    set_aside(made.family, uuid.uuid4().hex, by="a.lind")
    made.report()
    return Made("set_aside", job, made.at, made.waits(waiting_ms=-1))


SITUATIONS: tuple[Situation, ...] = (
    scheduled, retry, rate_limit, parked, queue_paused, queue_paused_after, actor_paused, value_paused, circuit_open,
    limited, in_outbox, behind_in_outbox, pool_away, behind, behind, behind, next_one, fetched,
    behind_silence, purged,
)  # fmt: skip
