"""What became of everything that was enqueued meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.queue.operations import QueueOperations
from broker.stores.job_records import JobRecords

SHOWN = 5
# How a job ends that is not to be completed.
ENDED_OTHERWISE = {"cancelled": "cancelled", "expired": "cancelled", "dead": "dead"}


@dataclass(frozen=True, slots=True)
class Account:
    """How the work stands. Ids, each once, but for ``duplicated``.

    Args:
        attempted: Somebody asked the server to take them.
        accepted: The server took them.
        completed: Accepted, and their task ended well.
        waiting: Accepted, and still to be done: they wait, are scheduled, or are held.
        dead, cancelled: Accepted, and ended so.
        lost: Accepted, and nothing of the above.
        duplicated: Completed again, named once for each time too many.
        unexpected: Completed, and neither accepted meanwhile nor there before.
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


def read_notes(path: Path) -> dict[str, Counter[str]]:
    """Return phase -> id -> how often, of what the children noted."""
    found: dict[str, Counter[str]] = {"completed": Counter(), "failed": Counter(), "skipped": Counter()}
    if path.exists():
        for line in path.read_text().splitlines():
            phase, _, id_ = line.partition(" ")
            found[phase][id_] += 1
    return found


def make_account(
    *,
    attempted: Iterable[str],
    accepted: Mapping[str, str],
    before: frozenset[str],
    notes: Mapping[str, Counter[str]],
    families: Sequence[QueueOperations],
    records: JobRecords,
) -> Account:
    """Return the account.

    Args:
        accepted: Id -> key of the hash of bodies that it was put into.
        before: Ids that were there when the ledger began; they are not counted.
        notes: As :func:`read_notes` returns them.
        families: Of the yard's queues.
        records: Say of a job that nobody completed how it ended, as far as they are kept.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    completed = notes["completed"]
    taken = [id_ for id_ in accepted if id_ not in before]
    by_key = {family.keys.bodies: family for family in families}
    places: dict[str, list[str]] = {place: [] for place in ("waiting", "dead", "cancelled", "lost")}
    for id_ in taken:
        if id_ not in completed:
            places[_place(id_, by_key[accepted[id_]], notes, records)].append(id_)
    return Account(
        attempted=tuple(attempted),
        accepted=tuple(taken),
        completed=tuple(id_ for id_ in taken if id_ in completed),
        duplicated=tuple(
            id_ for id_, count in completed.items() if id_ not in before for _ in range(count - 1) if id_ in accepted
        ),
        unexpected=tuple(id_ for id_ in completed if id_ not in accepted and id_ not in before),
        **{place: tuple(ids) for place, ids in places.items()},
    )


def _place(id_: str, family: QueueOperations, notes: Mapping[str, Counter[str]], records: JobRecords) -> str:
    keys = family.keys
    if family.wire.command("HEXISTS", keys.bodies, id_):
        return "waiting"
    if family.wire.command("HEXISTS", keys.letters, id_):
        return "dead"
    # A cancelled one is dropped by the server itself when its turn comes, and remembered so.
    if any((family.wire.command("HGET", key, id_) or b"").startswith(b"cancel") for key in keys.done):
        return "cancelled"
    record = records.read(id_)
    if record is not None:
        return ENDED_OTHERWISE.get(record.state, "lost")
    return "cancelled" if notes["skipped"][id_] else "lost"  # no record of it is kept
