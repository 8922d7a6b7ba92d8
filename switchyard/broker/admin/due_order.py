"""Walk over scheduled messages of many queues in the order of their due time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple

from switchyard.broker.admin.look_through import SeenMessage
from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.operations import QueueOperations

# Lanes in which a scheduled message has not failed yet.
FIRST_ATTEMPTS: Final[tuple[Lane, ...]] = ("live", "alone")
# Ids that one call reads from one schedule.
AT_ONCE: Final = 500


class _Entry(NamedTuple):
    """A place in a schedule; entries are compared by time, then by id, as the server orders them."""

    due_at: int
    id: bytes
    at: int


def next_due(
    families: Sequence[QueueOperations],
    *,
    after: tuple[int, str] | None,
    count: int,
    lanes: Sequence[Lane] = FIRST_ATTEMPTS,
) -> Iterator[list[SeenMessage]]:
    """Yield scheduled messages of all families, the next to be due first, at most ``count`` at a time.

    Each schedule is a sorted set: the first messages cost few round trips however many there are. Reads go on by due
    time and id, so that messages which start meanwhile move no other one past the reader. A message that is gone by the
    time its body is read is left out. The walk begins behind ``after``: a due time (ms since the epoch) and an id.
    """
    schedules = [_Schedule(family, lane) for family in families for lane in lanes]
    if not schedules:
        return
    calls = families[0].calls
    start = None if after is None else (after[0], after[1].encode())
    tied = [0] * len(schedules) if start is None else _tied_before(schedules, start)
    reads = [schedule.read(start, skipped, count + 1) for schedule, skipped in zip(schedules, tied, strict=True)]
    first = calls.pipeline(reads)
    walks = [
        schedule.walk(at, answer, start, count + 1)
        for at, (schedule, answer) in enumerate(zip(schedules, first, strict=True))
    ]
    entries = merge(*walks)
    while chunk := list(islice(entries, count)):
        yield _with_bodies(schedules, chunk)


class _Schedule:
    def __init__(self, family: QueueOperations, lane: Lane) -> None:
        self.family, self.lane = family, lane
        self.key = family.keys.due(lane)

    def read(self, start: tuple[int, bytes] | None, skipped: int, count: int) -> tuple[str | int, ...]:
        """Return the command that reads on from a time, without the first ones of that time."""
        since = "-inf" if start is None else start[0]
        return ("ZRANGEBYSCORE", self.key, since, "+inf", "WITHSCORES", "LIMIT", skipped, count)

    def walk(self, at: int, answer: list[bytes], start: tuple[int, bytes] | None, count: int) -> Iterator[_Entry]:
        """Yield what an answer and the ones after it hold, behind the start."""
        last = start
        while True:
            found = [_Entry(int(float(due)), id_, at) for id_, due in zip(answer[::2], answer[1::2], strict=True)]
            for entry in found:
                if last is None or entry[:2] > last:
                    last = entry[:2]
                    yield entry
            if len(found) < count or last is None:
                return
            # Of the same time, those that were read stand before the others.
            (skipped,) = _tied_before([self], last)
            count = AT_ONCE
            answer = self.family.calls.command(*self.read(last, skipped, count))


def _tied_before(schedules: Sequence[_Schedule], start: tuple[int, bytes]) -> list[int]:
    """Return how many ids each schedule has at a time up to an id: a search by halves, in few round trips.

    A hundred thousand messages may be due in the same millisecond, such as those that are sent for midnight.
    """
    calls, (due_at, id_) = schedules[0].family.calls, start
    low = [0] * len(schedules)
    high = [int(count) for count in calls.pipeline([("ZCOUNT", one.key, due_at, due_at) for one in schedules])]
    while open_ := [at for at in range(len(schedules)) if low[at] < high[at]]:
        middle = [(low[at] + high[at]) // 2 for at in open_]
        answers = calls.pipeline(
            [
                ("ZRANGEBYSCORE", schedules[at].key, due_at, due_at, "LIMIT", place, 1)
                for at, place in zip(open_, middle, strict=True)
            ]
        )
        for at, place, found in zip(open_, middle, answers, strict=True):
            if found and found[0] <= id_:
                low[at] = place + 1
            else:
                high[at] = place
    return low


def _with_bodies(schedules: Sequence[_Schedule], chunk: Sequence[_Entry]) -> list[SeenMessage]:
    wanted: dict[str, tuple[QueueOperations, list[bytes]]] = {}
    for entry in chunk:
        family = schedules[entry.at].family
        wanted.setdefault(family.keys.bodies, (family, []))[1].append(entry.id)
    calls = schedules[0].family.calls
    answers = calls.pipeline([("HMGET", key, *ids) for key, (_, ids) in wanted.items()])
    bodies = {
        (key, id_): body
        for (key, (_, ids)), found in zip(wanted.items(), answers, strict=True)
        for id_, body in zip(ids, found, strict=True)
    }
    return [
        SeenMessage(str(entry.id, "utf-8", "replace"), one.family.keys.queue, one.lane, "scheduled", body, entry.due_at)
        for entry in chunk
        if (one := schedules[entry.at]) and (body := bodies[one.family.keys.bodies, entry.id]) is not None
    ]
