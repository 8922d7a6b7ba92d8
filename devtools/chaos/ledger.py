"""Ledger of a chaos run: the whereabouts of every message that was enqueued during it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from devtools.attempts import Attempt
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.job_records import JobRecords

SHOWN = 5
# Final states of a job record other than completion -> field of the ledger.
ENDED_OTHERWISE = {"cancelled": "cancelled", "expired": "cancelled", "dead": "dead"}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Message ids by whereabouts. Each id occurs once in a field, but for ``duplicated``.

    Args:
        attempted: A client sent them to the server.
        accepted: The server enqueued them.
        completed: Accepted, and their actor ended without an exception.
        waiting: Accepted, and waiting, scheduled or leased.
        dead: Accepted, and dead letters.
        cancelled: Accepted, and cancelled or expired.
        lost: Accepted, and none of the above.
        duplicated: Completed again, once for each excess completion.
        unexpected: Completed, but neither accepted during the run nor present before it.
    """

    attempted: tuple[str, ...]
    accepted: tuple[str, ...]
    completed: tuple[str, ...]
    waiting: tuple[str, ...]
    dead: tuple[str, ...]
    cancelled: tuple[str, ...]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        ids = {name: getattr(self, name) for name in self.__slots__}
        lines = ["  ".join(f"{name} {len(found)}" for name, found in ids.items())]
        for name in ("lost", "unexpected"):
            if ids[name]:
                lines.append(f"{name}: {', '.join(ids[name][:SHOWN])}{' …' if len(ids[name]) > SHOWN else ''}")
        return "\n".join(lines)


def make_ledger(
    *,
    attempted: Iterable[str],
    accepted: Mapping[str, str],
    before: frozenset[str],
    attempts: Iterable[Attempt],
    queues: Sequence[QueueOperations],
    records: JobRecords,
) -> Ledger:
    """Return the ledger.

    Args:
        accepted: Id -> key of the hash that got its body.
        before: Ids that were enqueued before the run; they are not counted.
        attempts: Those that the children have logged.
        queues: Operations of the yard's queues.
        records: Job records, for messages that left the queue without completing.
    """
    outcomes = Counter((attempt.outcome, attempt.message_id) for attempt in attempts)
    completed = {id_: count for (outcome, id_), count in outcomes.items() if outcome == "completed"}
    counted = [id_ for id_ in accepted if id_ not in before]
    by_key = {queue.keys.bodies: queue for queue in queues}
    places: dict[str, list[str]] = {place: [] for place in ("waiting", "dead", "cancelled", "lost")}
    for id_ in counted:
        if id_ not in completed:
            places[_place(id_, by_key[accepted[id_]], records, skipped=("skipped", id_) in outcomes)].append(id_)
    return Ledger(
        attempted=tuple(attempted),
        accepted=tuple(counted),
        completed=tuple(id_ for id_ in counted if id_ in completed),
        duplicated=tuple(
            id_ for id_, count in completed.items() if id_ not in before for _ in range(count - 1) if id_ in accepted
        ),
        unexpected=tuple(id_ for id_ in completed if id_ not in accepted and id_ not in before),
        **{place: tuple(ids) for place, ids in places.items()},
    )


def _place(id_: str, queue: QueueOperations, records: JobRecords, *, skipped: bool) -> str:
    keys = queue.keys
    if queue.calls.command("HEXISTS", keys.bodies, id_):
        return "waiting"
    if queue.calls.command("HEXISTS", keys.dead_letters, id_):
        return "dead"
    # The server drops a cancelled message at its turn and records that in the hash of finished messages.
    if any((queue.calls.command("HGET", key, id_) or b"").startswith(b"cancel") for key in keys.done):
        return "cancelled"
    record = records.read(id_)
    if record is not None:
        return ENDED_OTHERWISE.get(record.state, "lost")
    return "cancelled" if skipped else "lost"  # its job is not tracked
