"""Age of the oldest message that a worker holds."""

from __future__ import annotations

import json

import redis

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.admin.scheduled import state_counts
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.history_streams import LiveJob, live_step
from switchyard.broker.stores.job_records import JobRecords


def sent(age_ms: int) -> bytes:
    """Return a message that was sent so long ago."""
    return json.dumps({"actor": "an_actor", "sent_at": now_ms() - age_ms}).encode()


def test_the_oldest_held_message_counts_until_it_ends(valkey: redis.Redis) -> None:
    calls = RedisCalls(valkey)
    family = QueueOperations(calls, Keys(prefix="stats").queue("old"))
    for owner in ("one/live", "two/live", "three/retry"):
        family.join(owner)
    family.enqueue([Entry("a", sent(5_000)), Entry("b", sent(9_000)), Entry("c", sent(1_000))])
    family.enqueue([Entry("r", sent(90_000))], lane="retry")
    [first] = family.fetch("one/live", 1, request=1).grants
    [second] = family.fetch("two/live", 1, request=1).grants
    family.fetch("three/retry", 1, request=1)

    held = family_stats(calls, family.keys, ages_held=True)
    family.ack("two/live", [second.lease])
    later = family_stats(calls, family.keys, ages_held=True)
    family.ack("one/live", [first.lease])
    waiting = family_stats(calls, family.keys, ages_held=True)

    assert held.oldest_held_age_ms is not None and 9_000 <= held.oldest_held_age_ms < 14_000
    assert later.oldest_held_age_ms is not None and 5_000 <= later.oldest_held_age_ms < 9_000
    assert waiting.oldest_held_age_ms is None
    assert waiting.oldest_unfinished_age_ms == waiting.live.oldest_age_ms
    assert family_stats(calls, family.keys).oldest_held_age_ms is None


HOUR_MS = 3_600_000


def test_every_place_of_every_family_counts_once(valkey: redis.Redis) -> None:
    calls, keys = RedisCalls(valkey), Keys(prefix="counted")
    one, other = (QueueOperations(calls, keys.queue(name)) for name in ("one", "other"))
    one.join("worker/live")
    one.enqueue([Entry(f"runs-{n}", b"{}") for n in range(2)])
    one.fetch("worker/live", 2, request=1)
    records = JobRecords(calls, keys, ["one", "other"])
    started = LiveJob("runs-0", "running", "", 1, 0, now_ms(), message="{}")
    records.write([live_step("one", started)])
    one.enqueue([Entry("high", b"{}")], level=1)
    one.enqueue([Entry("later", b"{}")], delay_ms=HOUR_MS)
    other.enqueue([Entry("retry", b"{}")], lane="retry")
    other.enqueue([Entry("retry-later", b"{}")], lane="retry", delay_ms=HOUR_MS)
    other.enqueue([Entry("waits", b"{}")])

    assert state_counts([one, other], records) == {"queued": 3, "scheduled": 1, "retrying": 2, "running": 1}
    assert set(state_counts([], records).values()) == {0}
