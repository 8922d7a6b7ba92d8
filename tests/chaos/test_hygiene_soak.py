"""Misbehaving jobs, drawn at random, beside well-behaved ones, each of which ends and writes its row.

    bin/test --long --part chaos -s -k hygiene                         # on SQLite
    bin/test --long --part chaos --database postgres -s -k hygiene     # on PostgreSQL

The long form goes in rounds. ``SOAK_FOLDER`` (by default ``var/soak-<database>``) keeps an account of each round that
has passed, with its seed, and the logs of the pools: a run that was ended goes on with the next round.

``SOAK_SEED`` chooses a seed, ``SOAK_COUNT`` other than 20 rounds.
"""

import contextlib
import itertools
import os
import random
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import psycopg
import pytest
from dramatiq.message import Message

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from tests.chaos.databases import SQLITE_TABLE, TABLE, DatabaseYard, manage
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.load import let_pass, wait_until_drained
from tests.chaos.pools import ROOT
from tests.chaos.soak_yard import BAD, KINDS, YARD
from tests.chaos.soak_yard.misbehaving import MISBEHAVING
from tests.environment import DATABASE, POSTGRES
from tests.resumed import resumed
from tests.waiting import wait_for

# Jobs that a queue may hold: what crashes with them runs alone, one after the other.
MOST = {**dict.fromkeys(KINDS, 100), **{f"{kind}{BAD}": 3 for kind in KINDS}}
GOOD = (*((kind, f"{kind}_good") for kind in KINDS), ("threads", "async_good"))
# Jobs that are looked through for one whose queue has room.
LOOKED_THROUGH = 200
# A stopped supervisor is replaced after 60 s.
NO_PROGRESS_S = 180.0
ENDED = re.compile(r"child \d+ \(pid (\d+)\)")
# A well-behaved job whose attempt raised something, and what: the policy of its queue repeats it.
FAILED = re.compile(r"\] (?:retried|dead) (.* job_id=(round-\d+-job-\d+) .*)")
# Such an attempt is told by its retry as well: a task that puts another log in place hides the lines of its neighbours.
RETRY = re.compile(r"job_id=(round-\d+-job-\d+) queue=\w+-retry")
# Signs of what an earlier job has left to it. By what all jobs of a process share, such as its descriptors, its event
# loop or a transaction of async jobs, a neighbour may cost it an attempt at any time: those are counted.
INHERITED = ("raised=AssertionError", "readonly database", "read-only transaction", "raised=DecimalException")


class Numbers(NamedTuple):
    """Numbers of the jobs of a round, and the share below which no actor is drawn."""

    bad: int
    good: int
    least_share: float = 0.0


SHORT, LONG, ROUNDS = Numbers(60, 800, 1.0), Numbers(75, 1_000), 20


class Job(NamedTuple):
    """A job to send; its first argument is its id."""

    queue: str
    actor: str
    arguments: tuple[Any, ...] = ()

    def message(self) -> Message[Any]:
        return Message(self.queue, self.actor, self.arguments, {}, {}, *map(str, self.arguments[:1]))


class Run(NamedTuple):
    """A well-behaved job that came to a phase, in a child of a supervisor."""

    phase: str
    job: str
    pid: int
    supervisor: int

    @classmethod
    def of(cls, entry: Entry) -> Self:
        job, _, supervisor = entry.job.partition("@")
        return cls(entry.phase, job, entry.pid, int(supervisor))


class Soak:
    """Pools on a database of their own, which stay over all rounds."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        folder.mkdir(parents=True)
        self._ledger = Ledger(folder / "ledger")
        self._database_url = new_database(folder)
        self._yard = DatabaseYard(
            self._ledger, broker_url, self._database_url, yard=YARD, settings="tests.chaos.soak_yard.settings"
        )
        self._transport = facilities(self._yard.broker).transport
        manage(self._yard.environment, "migrate", "--verbosity=0")
        self._execute(SQLITE_TABLE if POSTGRES is None else TABLE)
        self._yard.start()

    def run(self, number: int, numbers: Numbers, seed: int) -> dict[str, Any]:
        """Send the jobs of a round, wait for their ends, check what became of them; return an account of it."""
        began_s, chosen = time.monotonic(), random.Random(f"{seed}-{number}")
        known = [(kind, each) for each in MISBEHAVING if each.share >= numbers.least_share for kind in each.kinds]
        drawn = chosen.choices(known, [each.share for _, each in known], k=numbers.bad)
        names = [f"round-{number}-job-{each:05d}" for each in range(numbers.good)]
        jobs = [Job(f"{kind}{BAD}", f"{kind}_{each.name}") for kind, each in drawn]
        jobs += [Job(queue, actor, (name,)) for name, (queue, actor) in zip(names, itertools.cycle(GOOD))]
        chosen.shuffle(jobs)

        self._send(jobs)
        wait_until_drained(self._yard.broker, NO_PROGRESS_S)
        repeated = self._check(names)
        # One of each pool: the retry of the first goes to the fourth.
        last = [Job(kind, f"{kind}_good", (f"round-{number}-last-{kind}", kind == "threads")) for kind in KINDS]
        self._send(last)
        self._wait_for_completed(job.arguments[0] for job in last)

        ended = len(ENDED.findall(self._yard.log()))
        took = {
            "repeated": repeated, "failed attempts": len(FAILED.findall(self._yard.log())), "children ended": ended,
            "seconds": round(time.monotonic() - began_s),
        }  # fmt: skip
        return {"round": number, "seed": seed, "database": DATABASE, "bad": numbers.bad, "good": numbers.good, **took}

    def stop(self) -> None:
        self._yard.stop()
        self._ledger.close()

    def _send(self, jobs: list[Job]) -> None:
        """Send jobs, about in their order, as their queues have room for them."""
        moved_s = time.monotonic()
        while jobs:
            room, sent = dict.fromkeys(MOST, 0), []
            with contextlib.suppress(BrokerUnavailable):  # a busy machine
                room = self._room()
            for job in jobs[:LOOKED_THROUGH]:
                if room[job.queue] > 0:
                    room[job.queue] -= 1
                    self._yard.broker.enqueue(job.message())
                    sent.append(job)
            if sent:
                jobs, moved_s = [job for job in jobs if job not in sent], time.monotonic()
            assert time.monotonic() - moved_s < NO_PROGRESS_S, f"no room for {jobs[0]}: {room}\n{self._tail()}"
            let_pass(0.05)

    def _room(self) -> dict[str, int]:
        room = dict(MOST)
        for name in room:
            stats = self._transport.stats(name)
            room[name] -= sum(each.waiting + each.scheduled + each.running for each in (stats.live, stats.retry))
        return room

    def _check(self, names: list[str]) -> int:
        """Check that each well-behaved job ended and wrote, none is dead, and only ends of processes repeated one.

        Returns:
            How many runs there were beyond one a job.
        """
        self._wait_for_completed(names)
        dead = [self._transport.dead_letters(kind).items for kind in KINDS]
        assert not any(dead), dead
        rows = {job for (job,) in self._execute("SELECT DISTINCT job FROM chaos_row")}
        assert rows >= set(names), f"rows are missing: {sorted(set(names) - rows)}"
        log = self._yard.log()
        failed = FAILED.findall(log)
        inherited = [line for line, _ in failed if any(sign in line for sign in INHERITED)]
        assert not inherited, f"attempts failed by what an earlier job has left: {inherited}"
        ended, supervisors = {int(pid) for pid in ENDED.findall(log)}, {each.pid for each in self._yard.processes()}
        noted = [run for run in map(Run.of, self._ledger.entries()) if "-job-" in run.job]
        told = {job for _, job in failed} | {*RETRY.findall(log)}
        retried = told | {run.job for run in noted if run.phase == "failed"}
        runs = [run for run in noted if run.phase == "started"]
        last = {run.job: run for run in runs}
        earlier = [run for run in runs if run is not last[run.job]]
        unexplained = [
            run for run in earlier if run.pid not in ended and run.supervisor in supervisors and run.job not in retried
        ]
        assert not unexplained, f"runs were repeated without cause: {unexplained}\n{self._tail()}"
        return len(earlier)

    def _wait_for_completed(self, names: Iterable[str]) -> None:
        wanted = set(names)

        def all_completed() -> bool:
            return wanted <= {run.job for run in map(Run.of, self._ledger.entries()) if run.phase == "completed"}

        wait_for(all_completed, what=f"{len(wanted)} jobs completed, {self._tail()}")

    def _tail(self) -> str:
        return f"end of the log:\n{self._yard.log()[-6_000:]}"

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        if POSTGRES is not None:
            with psycopg.connect(self._database_url, autocommit=True) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []
        with contextlib.closing(sqlite3.connect(self._database_url.removeprefix("sqlite:///"))) as opened, opened:
            return opened.execute(statement).fetchall()


def new_database(folder: Path) -> str:
    if POSTGRES is None:
        return f"sqlite:///{folder / 'db.sqlite3'}"
    name = f"soak_{uuid.uuid4().hex}"
    POSTGRES.execute(f"CREATE DATABASE {name}")
    return str(POSTGRES.url_of(name))


@pytest.fixture
def soak_in(valkey, valkey_url) -> Iterator[Callable[[Path], Soak]]:
    """Start the pools of a soak that keeps its files in a folder: ``soak_in(folder)``."""
    with contextlib.ExitStack() as started:

        def start(folder: Path) -> Soak:
            soak = Soak(folder, valkey_url)
            started.callback(soak.stop)
            return soak

        yield start


def seed() -> int:
    """Return the seed that was chosen, or another one each time."""
    return int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.timeout(400)
def test_misbehaving_jobs_cost_no_other_job(soak_in, tmp_path):
    print(f"SOAK_SEED={(chosen := seed())}")

    print(soak_in(tmp_path / "soak").run(1, SHORT, chosen))


@pytest.mark.long
@pytest.mark.timeout(45 * 60)
def test_a_soak_of_misbehaving_jobs_costs_no_other_job(soak_in):
    folder = Path(os.environ.get("SOAK_FOLDER") or ROOT / "var" / f"soak-{DATABASE}")
    folder.mkdir(parents=True, exist_ok=True)
    soak = soak_in(folder / f"pools-{uuid.uuid4().hex[:4]}")

    def judge(seed: int, number: int) -> dict[str, Any]:
        print(account := soak.run(number + 1, LONG, seed))
        return account

    print(f"SOAK_SEED={(chosen := seed())}")  # of a round that fails, too
    resumed("SOAK", judge, folder, count=ROUNDS, seed=chosen)
