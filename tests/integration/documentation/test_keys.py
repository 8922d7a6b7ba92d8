"""The page of keys: made from the docstrings, and every command in it works on a server that holds each key."""

import re
import shlex

import pytest
import redis

from docs import make_keys
from switchyard.broker.admin.purge import set_aside
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations, policy_key
from switchyard.broker.queue.unroutable import UnroutableLane
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.shapes import ActorPause
from switchyard.broker.stores.alert_groups import AlertFact
from switchyard.broker.stores.history_streams import EndedJob, HistoryStreams, LiveJob, ended_step, live_step
from switchyard.broker.stores.job_records import FINISHED_TTL_MS
from switchyard.broker.stores.limit_counts import GroupBarriers, LimitCounts, Lock, TaskLock
from switchyard.broker.stores.pool_reports import Instruction, PoolReport
from tests.unit.documentation.pages import code_blocks, read

PAGE = read("docs/reference/keys.md")
ROWS = [*make_keys.family_rows(), *make_keys.shared_rows()]
OWNER = "webhook.host.4711.ab12.1.0/live"
MEMBER = "webhook:host:4711"
KNOWN = {
    "OWNER": OWNER, "ID": "held", "NAME": "a-name", "FINGERPRINT": "a-fingerprint", "REQUEST": "a-request",
    "MEMBER": MEMBER, "ACTOR": "an_actor", "TICK": "2026-11-20T00:00Z", "PURGE": "a-purge", "GROUP": "a-group",
    "BATCH": "a-batch", "KEY": "a-key", "TAG": "3560", "DIGEST": "a-digest", "START": "1764324000000",
}  # fmt: skip
# Written by parts of the platform that have tests of their own: named here so that no other key goes unwritten.
BY_HAND = {"String": ("SET",), "Hash": ("HSET", "field"), "Set": ("SADD",), "Sorted set": ("ZADD", 1)}


def filled(line: str) -> str:
    """Return a command of the page with real names in place of its capitals."""
    return re.sub(rf"\b({'|'.join(KNOWN)})\b", lambda found: KNOWN[found[0]], line)


@pytest.fixture
def server(valkey, facilities):
    """A server on which the yard has done something of everything, under the page's names."""
    keys = Keys()
    family = QueueOperations(RedisCalls(valkey), keys.queue(make_keys.QUEUE))
    family.join(OWNER, work="1 0 host")
    family.lapsed()
    family.enqueue([Entry("done", b"{}"), Entry("dead", b"{}"), Entry("odd", b"{}"), Entry("held", b"{}", "a-key")])
    done, dead, odd, _ = family.fetch(OWNER, 4, request=1).grants
    family.ack(OWNER, [done.lease])
    family.dead_letter(dead.lease, b"{}")
    family.quarantine(odd.lease, b"{}", whole=b"{}")
    family.enqueue([Entry("purged", b"{}", "purged-key"), Entry("purged-2", b"{}")], level=1)
    family.enqueue([Entry("purged-later", b"{}")], delay_ms=3_600_000)
    facilities.records.write([live_step(make_keys.QUEUE, LiveJob("purged-later", "retrying", attempt=1))])
    set_aside(family, "a-purge", by="an_operator")
    for level in (1, 2, 3):
        family.enqueue([Entry(f"waits-{level}", b"{}")], level=level)
    family.enqueue([Entry("later", b"{}")], delay_ms=3_600_000)
    parked = UnroutableLane(family, "live")
    parked.add("later", '["an_actor", 0, []]')
    parked.adopt(OWNER, '["an_actor", 0, []]', [])
    administration.pause(family)
    family.enqueue([Entry("yields", b"{}", "purged-key"), Entry("yields-2", b"{}", "purged-key")])
    family.enqueue([Entry("once", b"{}", policy_key("UNIQUE_KEY", {"unique_for": 60_000}))])
    administration.pause_actor(family, ActorPause(0, 0, 0, "an_actor"))
    HistoryStreams(RedisCalls(valkey), keys, ()).remove([], written=1, skipped=0)
    records, name = facilities.records, make_keys.QUEUE
    records.follow("held")
    records.write([live_step(name, LiveJob("held", "running", attempt=1))])
    records.progress("held", {"done": 1, "total": 2, "note": ""})
    records.write([ended_step(name, EndedJob("done", "succeeded", attempt=1, body=b"{}"))])
    kept_ms = 2 * FINISHED_TTL_MS
    records.write([ended_step(name, EndedJob("held", "succeeded", generation=1), kept_ms=kept_ms, marked=True)])
    records.write([live_step(name, LiveJob("held", "running", attempt=1))])
    records.progress("held", {"done": 1, "total": 2, "note": ""})
    facilities.windows.reserve("a-name", "held", limit=1, window_ms=60_000)
    facilities.alerts.raise_(AlertFact("a-fingerprint", "dead", "title", "text", "webhook", "an_actor", 1))
    quiet = Instruction("an-id", "quiet", started_at=1, at=1)
    facilities.pools.write(PoolReport("webhook", "host", 4711, "gevent", 64, 0, 1, 1, "up"), quiet)
    facilities.pools.instruct("webhook:host:4711", quiet)
    facilities.pools.ask_for_stacks("webhook:host:4711", "a-request")
    facilities.pools.answer_stacks("a-request", [])
    Lock(RedisCalls(valkey), keys, "a-name", lease_ms=60_000).acquire()
    TaskLock(RedisCalls(valkey), keys, "a-name", lease_ms=60_000).acquire()
    GroupBarriers(RedisCalls(valkey), keys).add("a-group", 2, 60_000)
    LimitCounts(lambda: (RedisCalls(valkey), keys)).add("a-name", 1, 60_000)
    for row in ROWS:
        for name in map(filled, row.names):
            if row.kind in BY_HAND and name.partition(":")[2] in NOT_MADE_HERE:
                command, *first = BY_HAND[row.kind]
                valkey.execute_command(command, name, *first, "value")
    return valkey


NOT_MADE_HERE = {
    "limit:{a-name}:answer:a-request",  # its last part is drawn
    f"{{facts}}:flushed:{MEMBER}",
    *("abort:{held}", "{webhook}:refused", "{webhook}:circuit:a-digest", "{webhook}:limits"),
    *("{rates}:overrides", "{webhook}:slots", "{webhook}:waits", "{webhook}:turns", "{webhook}:webhook.fair"),
    *("{webhook}:webhook.lines", "{webhook}:webhook.shares", "{webhook}:webhook.spent"),
    *("{webhook}:webhook.turn", "generation", "generation:missed", "headline", "keyspace:{3560}"),
    *("keyspace:{3560}:missed", "{webhook}:keyspace:id", "{webhook}:keyspace:missed", "job:{held}"),
    *("{facts}:bucket:1764324000000", "{facts}:minutes:1764324000000", "{facts}:read", "{batches}:index"),
    *("{batches}:due", "batch:{a-batch}", "batch:{a-batch}:open", "batch:{a-batch}:done"),
    *("batch:{a-batch}:failed", "batch:{a-batch}:cancelled", "{webhook}:ends", "{webhook}:suspects"),
    "tick:an_actor:2026-11-20T00:00Z",
}


def test_the_page_says_what_the_docstrings_say():
    assert make_keys.written(PAGE) == PAGE, "run .venv/bin/python -m docs.make_keys"


def test_every_method_that_names_a_key_is_on_the_page():
    names = {name for row in ROWS for name in row.names}

    assert len(names) > 25
    live = {re.sub(r":webhook-(retry|alone)", ":webhook", key) for key in Keys().queue(make_keys.QUEUE).all_keys()}
    assert live <= names


def test_every_key_is_of_the_type_the_page_says(server):
    kinds = {"Sorted set": "zset"}
    for row in ROWS:
        found = {server.type(filled(name)).decode() for name in row.names} - {"none"}

        assert found == {kinds.get(row.kind, row.kind.lower())}, row


def test_every_question_is_answered_and_changes_nothing(server):
    before = everything(server)

    for block in code_blocks(PAGE, "text"):
        for line in block.splitlines():
            if not line.startswith("valkey-cli"):
                server.execute_command(*shlex.split(filled(line)))
                assert everything(server) == before, line


def test_the_questions_find_a_message_that_is_held(server):
    [block] = [block for block in code_blocks(PAGE, "text") if "LPOS" in block]

    answers = [server.execute_command(*shlex.split(filled(line))) for line in block.splitlines()]

    assert [answer for answer in answers if answer] == [1, b"4"]


def everything(server: redis.Redis) -> dict[bytes, object]:
    return {key: server.dump(key) for key in server.scan_iter()}
