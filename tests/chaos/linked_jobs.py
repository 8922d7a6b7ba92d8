"""Actors of jobs that depend on others: batches, groups, limits on what runs at once; and the audit of what ran."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import dramatiq
from dramatiq import Actor, group
from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage
from dramatiq_abort import Abort

from switchyard.batches.services import NewBatch, batch, current_batch
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, FailsOnce
from tests.ways import WAYS

AT_ONCE = 5
CALLBACKS = ("on_success", "on_failure", "on_complete")
# Of the members of a batch, by number: what fails for good in every second batch, what fails once, what adds others.
FAILS, ONCE, ADDS = 9, (3, 7), 0
ADDED = 2
CALLBACK = "callback-of-"


def declare_limited_jobs(broker: Broker, ledger: Ledger) -> Any:
    """Return the actors ``limited``, five at once of each key, and ``ordered``, one after the other."""

    def run(job: str, ms: int) -> None:
        ledger.note("started", job)
        time.sleep(ms / 1000)
        ledger.note("completed", job)

    @dramatiq.actor(broker=broker, queue_name=QUEUE, concurrency=f"{AT_ONCE} per key")
    def limited(key: str, job: str, ms: int) -> None:
        run(job, ms)

    @dramatiq.actor(broker=broker, queue_name=QUEUE, ordered_by="key")
    def ordered(key: str, job: str, ms: int) -> None:
        run(job, ms)

    return SimpleNamespace(limited=limited, ordered=ordered)


def key_of(job: str) -> str:
    """Return the key of a job, whose name is ``<key>.<number>``."""
    return job.partition(".")[0]


def most_at_once(ledger: Ledger, died_s: Mapping[int, float]) -> Counter[str]:
    """Return by key how many of its jobs ran at once. A run ends with its job, or before its process was killed."""
    running: dict[tuple[str, int], float] = {}
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for entry in ledger.entries():
        if entry.phase == "started":
            running[entry.job, entry.pid] = entry.at_s
        elif entry.phase == "completed":
            changes[key_of(entry.job)] += [(running.pop((entry.job, entry.pid)), 1), (entry.at_s, -1)]
    for (job, pid), began_s in running.items():
        changes[key_of(job)] += [(began_s, 1), (max(died_s[pid], began_s), -1)]
    most: Counter[str] = Counter()
    for key, steps in changes.items():
        now = 0
        for _, step in sorted(steps):
            now += step
            most[key] = max(most[key], now)
    return most


def first_starts(ledger: Ledger, key: str) -> list[int]:
    started = dict.fromkeys(job for job in ledger.jobs("started") if key_of(job) == key)
    return [int(job.partition(".")[2]) for job in started]


def declare_batch_jobs(
    broker: Broker, ledger: Ledger, queues: tuple[str, str], aside: str
) -> tuple[list[Actor[..., None]], Actor[..., None]]:
    """Return actors of members, one in each queue, and that of callbacks."""
    actors: list[Actor[..., None]] = []

    def run(name: str, number: int, ms: int) -> None:
        job = f"{name}-{number}"
        ledger.note("started", job)
        current, batch = CurrentMessage.get_current_message(), current_batch()
        if number == ADDS:
            for more in range(ADDED):
                batch.add(actors[more % 2].message(name, 100 + more, ms))
                WAYS["sleep"](ms / 1000)
        WAYS["sleep"](ms / 1000)
        if number in ONCE and not current.options.get("attempts"):
            raise FailsOnce(job)
        if number == FAILS and name.endswith("-fails"):
            raise RuntimeError(job)
        ledger.note("completed", job)

    for queue in queues:
        actors.append(dramatiq.actor(run, broker=broker, queue_name=queue, actor_name=f"member_of_{queue}"))

    @dramatiq.actor(broker=broker, queue_name=aside)
    def batch_called(name: str, callback: str) -> None:
        ledger.note("completed", f"{callback}-of-{name}")

    return actors, batch_called


def send_batch(
    members: list[Actor[..., None]], called: Actor[..., None], name: str, size: int, ms: int = 0
) -> NewBatch:
    with batch(name, **{callback: called.message(name, callback) for callback in CALLBACKS}) as made:
        made.add(*(members[number % len(members)].message(name, number, ms) for number in range(size)))
    return made


def declare_group_jobs(broker: Broker, ledger: Ledger) -> tuple[Actor[..., str], Actor[..., None]]:
    """Return the actor of jobs, whose result is their name, and that of callbacks."""

    @dramatiq.actor(broker=broker, queue_name=QUEUE, store_results=True)
    def group_job(job: str, ms: int = 0) -> str:
        WAYS["sleep"](ms / 1000)
        ledger.note("completed", job)
        return job

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def aborted_job(job: str) -> None:
        ledger.note("started", job)
        try:
            WAYS["sleep"](60)
        except Abort:
            ledger.note("completed", job)
            raise

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def group_done(name: str) -> None:
        ledger.note("completed", f"{CALLBACK}{name}")

    return group_job, group_done


def called(ledger: Ledger) -> list[str]:
    return [job.removeprefix(CALLBACK) for job in ledger.jobs("completed") if job.startswith(CALLBACK)]


def run_group(broker: Broker, name: str, jobs: int, ms: int = 0) -> group:
    messages = [Message(QUEUE, "group_job", (f"{name}-{number}", ms), {}, {}) for number in range(jobs)]
    started = group(messages, broker=broker)
    started.add_completion_callback(Message(QUEUE, "group_done", (name,), {}, {}))
    return started.run()
