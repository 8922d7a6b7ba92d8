"""The first cause that ``diagnose`` names in random situations is the made one, and its advice harms nothing."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
import redis
from django.db import connection, transaction
from dramatiq.message import Message

from switchyard.broker.clock import CLOCK, NS_IN_MS, YardClock, now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import Facilities
from switchyard.broker.queue import administration, codec
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.history_streams import LiveJob, live_step
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.broker.stores.yard_facts import FactStore, actor_subject, bucket_of, field, queue_subject
from switchyard.commands.status import causes_of
from switchyard.history.models import JobRow
from switchyard.jobs.queries import families
from switchyard.long_running import SCHEDULER
from switchyard.operations import overview, queries
from switchyard.operations.diagnosis import Diagnosis
from switchyard.operations.findings import actors, lateness, own_past
from switchyard.operations.past import PAST
from switchyard.operations.rows import draw
from tests.resumed import resumed
from tests.verdicts.draws.situations import BUCKET_S, SITUATIONS, SLOTS, Counted, Draw, Drawn, SimulatedJob

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


def test_one_situation_of_each_kind_is_named(facilities, valkey):
    found = [judged(1, number, facilities, valkey) for number in range(len(SITUATIONS))]

    assert [each for each in found if not each["right"]] == []


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_hundred_situations(facilities, valkey, tmp_path):
    """Resumed where its log ends: ``python -m tests.verdicts.draws --seed 1 --log FILE``."""
    found = resumed("DRAWS", lambda *case: judged(*case, facilities, valkey), tmp_path, count=100)

    for (made, said), times in sorted(Counter((each["made"], each["named"]) for each in found).items()):
        print(f"{made or 'calm':20} named {said or 'nothing':20} {times:4}")
    right = sum(each["right"] for each in found) / len(found)
    print(f"right {right:.3f} of {len(found)}, harmful {sum(each['harms'] for each in found)}")
    assert right >= LEAST_RIGHT
    assert not [each for each in found if each["harms"] or (each["named"] and not each["made"])]


MOST_WAITING = 1_500


@contextmanager
def declared(drawn: Drawn) -> Iterator[None]:
    """Declare the actors of a situation for the time of the block."""
    broker = dramatiq.get_broker()

    def act(customer_id: int = 0) -> None:
        pass

    for name, work in drawn.actors.items():
        options: dict[str, Any] = {"depends_on": work.dependency} if work.dependency else {}
        dramatiq.actor(act, actor_name=name, queue_name=work.queue, broker=broker, **options)
    try:
        yield
    finally:
        for name in drawn.actors:
            del broker.actors[name]


class RecordedYard:
    """The broker of the tests, filled with a situation whose last second is now."""

    def __init__(self, facilities: Facilities, drawn: Drawn, draw: random.Random) -> None:
        self._facilities, self._drawn, self._draw, self._now = facilities, drawn, draw, 0

    def record(self, patch: pytest.MonkeyPatch) -> None:
        """Write the facts bucket by bucket, on a clock that runs ahead of the server's: what is past is closed."""
        store, simulation, until = self._facilities.facts, self._drawn.simulation, self._drawn.until
        begin = bucket_of(store.server_ms()) + yard_facts.BUCKET_MS
        counted, read = Counted(simulation.jobs, until), dict[str, int]()
        clock = {"ms": begin}
        patch.setattr(FactStore, "server_ms", lambda self: clock["ms"])
        # Flushes and samples are made at the end of a bucket, and counted in it.
        depths = self._depths(until)
        for bucket in range(int(until // BUCKET_S) + 1):
            clock["ms"] = begin + bucket * yard_facts.BUCKET_MS
            store.add("draws:host:1", begin + bucket, counted.counts[bucket])
            for (queue, actor), count in counted.sent[bucket].items():
                read[f"{queue}\n{actor}"] = read.get(f"{queue}\n{actor}", 0) + count
            counters = {
                name: (field(actor_subject(name.partition("\n")[2]), yard_facts.SENT), n) for name, n in read.items()
            }
            store.sample(counters, depths[bucket])
            if bucket % 6 == 5:
                store.fold(clock["ms"])
        clock["ms"] = begin + int(until * 1_000)

    def _depths(self, until: float) -> dict[int, dict[str, dict[int, int]]]:
        found: dict[int, dict[str, dict[int, int]]] = {}
        jobs = self._drawn.simulation.jobs
        for bucket in range(int(until // BUCKET_S) + 1):
            found[bucket] = {queue_subject(queue): {yard_facts.DEPTH: 0, yard_facts.AGE_MS: 0} for queue in SLOTS}
        for job in jobs:
            first, last = int(job.sent // BUCKET_S) + 1, int(min(job.start, until) // BUCKET_S)
            for bucket in range(first, last + 1):
                of = found[bucket][queue_subject(job.work.queue)]
                of[yard_facts.DEPTH] += 1
                of[yard_facts.AGE_MS] = max(of[yard_facts.AGE_MS], round((bucket * BUCKET_S - job.sent) * 1_000))
        return found

    def fill(self, patch: pytest.MonkeyPatch) -> None:
        """Put what waits and runs into the broker, and what ended into the history; then this process's clock stops."""
        drawn, until, self._now = self._drawn, self._drawn.until, now_ms()
        for queue in SLOTS:
            running = [job for job in drawn.simulation.running(until) if job.work.queue == queue]
            self._run(queue, running)
            waiting = [job for job in drawn.simulation.waiting(until) if job.work.queue == queue]
            half = MOST_WAITING // 2
            for job in waiting if len(waiting) <= MOST_WAITING else [*waiting[:half], *waiting[-half:]]:
                self._send(job)
            self._report(queue, len(running))
        self._report_others()
        self._hold()
        if drawn.paused:
            administration.pause(families([drawn.paused])[0], by="ada", reason="a migration")
        self._write_history()
        self._facilities.records.calls.command("SET", self._facilities.records.keys.lock(SCHEDULER), "draws")
        patch.setattr(CLOCK, "wrong", True)
        patch.setattr(YardClock, "now_ns", lambda clock: self._now * NS_IN_MS)

    def _message(self, job: SimulatedJob) -> Message[Any]:
        options = {"enqueued_at": self._at(job.sent)}
        if self._drawn.owner and job.actor == self._drawn.flooding:
            options["owner"] = self._drawn.owner  # type: ignore[assignment]
        elif self._drawn.owner:
            options["owner"] = f"customer-{job.args[0]}"  # type: ignore[assignment]
        return Message(job.work.queue, job.actor, job.args, {}, options)

    def _at(self, second: float) -> int:
        return self._now - round((self._drawn.until - second) * 1_000)

    def _send(self, job: SimulatedJob) -> None:
        dramatiq.get_broker().enqueue(self._message(job))

    def _fetch(self, queue: str, count: int) -> list[HeldMessage]:
        [family] = families([queue])
        owner = f"{queue}.h1.{self._draw.getrandbits(30)}.abcdefab.0.1/live"
        family.join(owner, lease_ms=3_600_000)
        grants = family.fetch(owner, count, request=1).grants
        decoded = [
            codec.decode(each.body or b"", message_id=str(each.lease.id, "ascii"), lane=queue) for each in grants
        ]
        return [HeldMessage(message, each.lease, family) for message, each in zip(decoded, grants, strict=True)]

    def _run(self, queue: str, running: list[SimulatedJob]) -> None:
        for job in running:
            self._send(job)
        held = self._fetch(queue, len(running)) if running else []
        steps = [
            LiveJob(
                each.message_id, "running", attempt=1, started_at=self._at(job.start), lane=queue, pool=queue,
                worker=f"{queue}.h1.77.abcdefab.0.1",
            )
            for each, job in zip(held, running, strict=True)
        ]  # fmt: skip
        if steps:
            self._facilities.records.write([live_step(queue, step) for step in steps])

    def _report(self, pool: str, busy: int, slots: int = 0) -> None:
        if pool != self._drawn.down:
            report = PoolReport(
                pool, "h1", 77, "threads", slots or SLOTS[pool], busy, self._now - 3_600_000, now_ms(), "up",
                children=[{"pid": 78, "ready": True, "busy": busy, "done": 1, "rss_bytes": 1, "quiet": False}],
            )  # fmt: skip
            self._facilities.pools.write(report)

    def _report_others(self) -> None:
        for pool in self._facilities.yard.pools:
            if pool.name not in SLOTS:
                self._report(pool.name, 0, slots=1)

    def _hold(self) -> None:
        """Put jobs off as a limit does, and let jobs wait for a retry."""
        actor, count, each_s = self._drawn.held
        transport = self._facilities.transport
        for number in range(count):
            work = self._drawn.actors[actor]
            dramatiq.get_broker().enqueue(Message(work.queue, actor, (number,), {}, {}))
        if count:
            mine = [each for each in self._fetch(work.queue, 10_000) if each.actor_name == actor]
            for number, each in enumerate(mine):
                transport.defer(
                    each, delay_ms=round((number + 1) * each_s * 1_000), options={"deferred_by": "rate_limit"}
                )
        for number in range(self._drawn.retrying):
            dramatiq.get_broker().enqueue(Message("default", "mail", (number,), {}, {}))
        if self._drawn.retrying:
            for each in self._fetch("default", 10_000):
                delay_ms = self._draw.randint(20_000, 600_000)
                transport.divert(each, lane="default-retry", delay_ms=delay_ms, options={"attempts": 1})

    def _write_history(self) -> None:
        """Write the rows of thousands of jobs; an object of the model for each would take half the time of a draw."""
        fields = [each for each in JobRow._meta.concrete_fields if not each.primary_key]
        blank = {each.column: each.get_db_prep_save(getattr(JobRow(), each.attname), connection) for each in fields}
        names, rows = ", ".join(map(connection.ops.quote_name, blank)), []
        for number, job in enumerate(self._drawn.simulation.ended(self._drawn.until - 300, self._drawn.until)):
            state = ("retrying" if job.work.outage else "dead") if job.failed else "succeeded"
            end, (kind, text) = self._at(job.end), job.work.error
            failed = {"failed_at": end, "error_type": kind, "error_message": text, "fingerprint": kind}
            row = {
                "job_id": f"ended-{number}", "sequence": 1, "state": state, "actor": job.actor,
                "queue": job.work.queue, "lane": job.work.queue, "attempts": 1, "generation": 0,
                "started_at": self._at(job.start), "finished_at": end,
                "wait_ms": round((job.start - job.sent) * 1_000), "run_ms": round((job.end - job.start) * 1_000),
                **(failed if job.failed else {}),
            }  # fmt: skip
            rows.append(tuple((blank | row).values()))
        insert = f"INSERT INTO {JobRow._meta.db_table} ({names}) VALUES ({', '.join(['%s'] * len(blank))})"
        with connection.cursor() as cursor, transaction.atomic():
            cursor.executemany(insert, rows)


def forget() -> None:
    """Forget what this process has read of the yard before."""
    overview.FACTS.forget()
    queries.forget()
    lateness.SAMPLED.clear()
    PAST.clear()


def named(facilities: Facilities) -> list[Diagnosis]:
    """Return the causes that ``diagnose`` names, by the checks that say something of this state."""
    facilities.facts.forget()
    examined = [*own_past.look(), *actors.look()]
    facts, away = overview.FACTS.read()
    room = overview.diagnose(facts, examined, 0, away)
    assert facts is not None
    rows = [(row, draw(row, *overview.most_held(row, facts))) for row in overview.shown_rows(facts)]
    return causes_of(SimpleNamespace(verdict=room, rows=rows))  # type: ignore[arg-type]
