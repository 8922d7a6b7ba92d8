"""Actors of batches: members that fail once or for good and add others, and a callback, which no pool here runs."""

from __future__ import annotations

import dramatiq
from dramatiq import Actor
from dramatiq.broker import Broker
from dramatiq.middleware import CurrentMessage

from switchyard.batches.services import NewBatch, batch, current_batch
from tests.chaos.ledger import Ledger
from tests.chaos.load import FailsOnce
from tests.ways import WAYS

CALLBACKS = ("on_success", "on_failure", "on_complete")
# Of the members of a batch, by number: what fails for good in every second batch, what fails once, what adds others.
FAILS, ONCE, ADDS = 9, (3, 7), 0
ADDED = 2


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
