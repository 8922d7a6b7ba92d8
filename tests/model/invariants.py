"""The five invariants, checked against the keys and the promises to callers, not against the model's places."""

from collections.abc import Mapping

from switchyard.broker.keys import ALL_LANES
from switchyard.broker.queue.operations import lane_of
from tests.model.keyspace import ACTIVE, DEAD, FINISHED, NOTES, QUARANTINED, SCHEDULED, UNFINISHED, WAITING, Keyspace

Places = Mapping[str, str]

# Nothing leaves these but by an operator's command, or because its id is forgotten.
KEPT = {DEAD: {"requeue", "discard"}, QUARANTINED: {"advance"}, FINISHED: {"advance"}}


def conserved(found: Keyspace, accepted: set[str], bodiless: set[str]) -> None:
    """Every id that was accepted is in exactly one place, with a body there if and only if it is to be worked off.

    Args:
        bodiless: Those that somebody put there by hand, without one.
    """
    places = found.places()
    assert sorted(places) == sorted(accepted), "ids that are nowhere, or that nobody enqueued"
    doubled = {id_: where for id_, where in places.items() if len(where) > 1}
    assert not doubled, f"ids in several places: {doubled}"
    unfinished = {id_ for id_, where in places.items() if where[0] in UNFINISHED}
    assert found.bodies.keys() == unfinished - bodiless, "a body without its message, or a message without its body"
    assert sorted(found.dead) == sorted(found.letters), "a dead letter without its text, or a text without its letter"
    assert found.notes("key") == {id_: key for key, id_ in found.unique.items()}, "a unique key and its note differ"
    assert set(found.unique.values()) <= unfinished, "a unique key of a message that ended"
    noted = {id_ for kind in NOTES for id_ in found.notes(kind)}
    assert noted <= unfinished | set(found.dead), "notes of a message that ended"


def owned(found: Keyspace) -> None:
    """Check that an id has at most one valid token, no token is issued twice, and each holder has a lease."""
    tokens = [token for held in found.holds.values() for token in held.values()]
    assert len(set(tokens)) == len(tokens), "two messages under one token"
    assert max(tokens, default=0) <= found.token, "a token that was not given out yet"
    assert found.holds.keys() <= found.leases.keys(), "held by an owner without a lease, from whom nobody takes it back"


def told(found: Keyspace, told_due_ms: Mapping[str, int | None]) -> None:
    """Check that each message that can be fetched, now or when due, has a rung bell or a consumer to fetch it."""
    for lane in ALL_LANES:
        assert found.rung[lane] <= 1, "a bell rung twice wakes two consumers for one thing"
        if found.paused or found.rung[lane]:
            continue
        assert not [place for place in found.waiting if place[0] == lane], f"messages wait in {lane}, nobody was told"
        due = found.scheduled[lane].values()
        known = [ms for owner, ms in told_due_ms.items() if lane_of(owner) == lane and owner in found.leases]
        assert not due or min((ms for ms in known if ms is not None), default=min(due) + 1) <= min(due), (
            f"nobody who is left knows when the next message in {lane} is due"
        )


def kept(operation: str, before: Places, after: Places) -> None:
    """Check that dead, quarantined and finished messages stay so until an operator acts or their id expires."""
    for id_, place in before.items():
        if place in KEPT and after.get(id_) != place:
            assert operation in KEPT[place], f"{operation} took {id_} out of {place} to {after.get(id_)}"


def on_time(operation: str, before: Keyspace, after: Places, now_ms: int) -> None:
    """Nothing leaves the schedule before it is due, but by an operator's command, or for a worker it was parked for."""
    if operation in ("cancel", "flush", "adopt"):
        return
    for due in before.scheduled.values():
        for id_, due_ms in due.items():
            assert due_ms <= now_ms or after.get(id_) == SCHEDULED, (
                f"{id_} left the schedule {due_ms - now_ms} ms early"
            )


def promoted(found: Keyspace, owner: str, now_ms: int) -> None:
    """After a fetch nothing that is due is left in the schedule of its lane."""
    late = [id_ for id_, due_ms in found.scheduled[lane_of(owner)].items() if due_ms <= now_ms]
    assert not late, f"due, but still scheduled: {late}"


def swept(found: Keyspace, now_ms: int) -> None:
    """After a sweep no lease is left that ran out."""
    late = [owner for owner, until_ms in found.leases.items() if until_ms <= now_ms]
    assert not late, f"leases that ran out: {late}"


def blamed(operation: str, before: Keyspace, after: Keyspace, running: set[str]) -> None:
    """A crash is counted once, of what ran, and forgotten only with the message, its burial or its requeue."""
    for id_, count in after.crashes.items():
        growth = count - before.crashes.get(id_, 0)
        # A message that comes from another family brings its count, which the model foresees.
        if growth > 0 and not (operation == "place" and id_ not in before.bodies):
            assert operation == "reclaim" and id_ in running, f"{operation} blamed {id_}, which did not run"
            assert growth == 1, f"one crash of {id_} was counted {growth} times"
    places = after.places()
    for id_ in before.crashes.keys() - after.crashes.keys():
        assert not set(places.get(id_, ())) & UNFINISHED or operation == "requeue", (
            f"{operation} forgot {id_}'s crashes"
        )


def drained(found: Keyspace) -> None:
    """Fair repetition has worked everything off."""
    left = {id_: where for id_, where in found.places().items() if where[0] in (WAITING, SCHEDULED, ACTIVE)}
    assert not left, f"never worked off: {left}"
    assert not found.bodies and not found.holds
