"""Bulk acts and purges of large queues whose process is killed, again and again, are exact: F78."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.admin.purge import STEP, finish, purges, set_aside
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.dead_lists import encode_letter
from switchyard.broker.stores.history_streams import decode_rows
from switchyard.broker.stores.job_records import RecordLimits
from switchyard.bulk import services
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import step_size
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import columns
from tests.chaos.pools import MANAGE, ROOT, RunningPool
from tests.chaos.server import ServerUnderTest
from tests.factories.letters import letter
from tests.waiting import wait_for

# It takes 100,000.
QUEUE = "webhook"
WHO = Who("a.lind", "page")
# Letters or jobs, and kills.
SIZES = [pytest.param(1_000, 1, id="1,000"), pytest.param(100_000, 3, id="100,000", marks=pytest.mark.long)]
PREFIX, PURGED = "chaos", "purged"
OWNER = "worker/live"
LEASED = 64
BODY = b'{"actor":"an_actor","sent_at":1,"args":["' + b"x" * 400 + b'"]}'
KILLS = 3
# One call in so many may be longer: what was freed is given back to the system by whichever call comes along.
RARE, USUAL_MS, LONGEST_MS = 5_000, 10.0, 50.0


@contextlib.contextmanager
def scheduler(environment: dict[str, str]) -> Iterator[None]:
    running = RunningPool.started([*MANAGE, "switchyard", "runscheduler"], Path(os.devnull), env=environment)
    try:
        yield
    finally:
        running.kill()


def finish_with_kills(act: BulkAct, environment: dict[str, str], kills: int) -> None:
    """Run the act to its end; kill everything that runs it at random moments."""
    chance = random.Random(act.total)

    def reached() -> int:
        return BulkAct.objects.values_list("done", flat=True).get(pk=act.pk)

    for nth in range(kills):
        at = chance.randint(act.total * nth // (kills + 1), act.total * (nth + 1) // (kills + 1))
        with scheduler(environment):
            wait_for(lambda: reached() >= at, timeout_s=120, what=f"{at} done")  # noqa: B023
            time.sleep(chance.uniform(0, 0.05))  # anywhere in a step
    with scheduler(environment):
        wait_for(lambda: not BulkAct.objects.get(pk=act.pk).unfinished, timeout_s=600)


def watch(valkey: redis.Redis) -> None:
    """Have the server measure its calls anew, keep those of over a millisecond, and not fork meanwhile.

    After a fork each page that a call writes to is copied first: that takes the main thread longer than the call.
    """
    valkey.config_set("auto-aof-rewrite-percentage", 0)
    valkey.config_resetstat()
    valkey.slowlog_reset()
    valkey.config_set("slowlog-log-slower-than", 1_000)
    valkey.config_set("slowlog-max-len", 100_000)


def report(act: BulkAct, valkey: redis.Redis) -> None:
    seconds = (act.ended_at - act.started_at).total_seconds()  # type: ignore[operator]
    calls = valkey.info("commandstats")["cmdstat_evalsha"]
    longest = max((entry["duration"] for entry in valkey.slowlog_get(100_000)), default=0)
    print(
        f"{act.kind}: {act.done:,} in {seconds:.1f} s with restarts; "
        f"scripts {calls['usec_per_call']:.0f} µs a call, the longest call {longest / 1_000:.1f} ms"
    )
    # A long call stops the server for all: each is a step's, of so many items.
    assert calls["calls"] >= act.step >= act.total / step_size(act)


def bury(count: int) -> list[str]:
    broker = dramatiq.get_broker()
    keys = broker.keys.queue(QUEUE)
    first = now_ms() - count - 1_000
    ids: list[str] = []
    for start in range(0, count, 1_000):
        letters = [letter(queue=QUEUE, died_at=first + n) for n in range(start, min(start + 1_000, count))]
        pairs = [word for one in letters for word in (one.id, encode_letter(one))]
        broker.calls.pipeline([("HSET", keys.dead_letters, *pairs), ("RPUSH", keys.dead, *pairs[::2])])
        DeadLetter.objects.bulk_create(DeadLetter(message_id=one.id, **columns(one)) for one in letters)
        ids += [one.id for one in letters]
    return ids


@pytest.mark.timeout(900)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("count", "kills"), SIZES)
@pytest.mark.parametrize("kind", ["letter.requeue", pytest.param("letter.discard", marks=pytest.mark.long)])
def test_letters_of_a_killed_bulk_act_are_moved_once_each(kind, count, kills, facilities, valkey, process_environment):
    ids = bury(count)

    watch(valkey)
    act = services.start(kind, {"fingerprint": "f00dfacef00dface"}, who=WHO, reason="mended")
    finish_with_kills(act, process_environment, kills)

    act.refresh_from_db()
    report(act, valkey)
    assert (act.state, act.total, act.done, act.skips) == ("done", count, count, {})
    keys = facilities.records.keys.queue(QUEUE)
    waiting = [str(id_, "ascii") for id_ in facilities.records.calls.command("LRANGE", keys.waiting("live")[1], 0, -1)]
    assert waiting == (ids if kind == "letter.requeue" else []), "each once, the oldest first"
    assert facilities.transport.stats(QUEUE).dead == 0
    expected = "requeued" if kind == "letter.requeue" else "discarded"
    assert DeadLetter.objects.filter(state=expected, state_by="a.lind", claim_token="").count() == count
    assert {len(history) for history in DeadLetter.objects.values_list("history", flat=True)[:500]} == {1}
    assert AuditEntry.objects.values_list("count", "outcome").get(act=kind) == (count, "done")


@pytest.mark.timeout(900)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("count", "kills"), SIZES)
@pytest.mark.long
def test_jobs_of_a_killed_bulk_cancel_are_cancelled_once_each(count, kills, facilities, valkey, process_environment):
    broker = dramatiq.get_broker()
    actor = broker.actors["deliver_webhook"]
    ids: list[str] = []
    for n in range(count):
        message = actor.message(n).copy(options={"enqueued_at": now_ms()})
        ids.append(message.message_id)
        broker.enqueue(message, delay=3_600_000 if n % 4 == 0 else None)

    watch(valkey)
    act = services.start("job.cancel", {"queue": QUEUE}, who=WHO, reason="wrong price")
    finish_with_kills(act, process_environment, kills)

    act.refresh_from_db()
    report(act, valkey)
    assert (act.state, act.total, act.done, act.skips) == ("done", count, count, {})
    found = Counter(facilities.records.states(ids))
    ended = valkey.hgetall(facilities.records.keys.queue(QUEUE).ended)
    entries = valkey.xrange(facilities.records.keys.queue(QUEUE).history)
    rows = [row for _, fields in entries for row in decode_rows(fields[b"rows"])]
    dropped = int(ended.get(b"dropped", 0))
    print(f"{found}, {int(ended[b'bytes']):,} bytes of records, {len(rows):,} rows, {dropped:,} dropped")
    # Of so many, neither records nor rows fit into this queue's share of the budgets, and no writer runs here.
    full = RecordLimits().records_bytes // len(facilities.yard.queues)
    assert found["cancelled"] + found[None] == count
    assert not found[None] or int(ended[b"bytes"]) > 0.85 * full
    assert {row.id for row in rows} <= set(ids)
    assert len({row.id for row in rows}) + dropped >= count
    assert {row.state for row in rows} == {"cancelled"}
    assert AuditEntry.objects.values_list("count", "outcome").get(act="job.cancel") == (count, "done")


class MeasuredCalls(RedisCalls):
    """Calls that note how much CPU of the server's main thread each call took: it serves nobody else then.

    CPU, not time: on a machine that is shared the server may have to wait for its turn in the middle of a call.
    """

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.took_ms: defaultdict[str, list[float]] = defaultdict(list)

    def call(self, operation: Any, *args: Any, **options: Any) -> Any:
        before_s = self._cpu_s()
        answer = super().call(operation, *args, **options)
        self.took_ms[operation.name].append((self._cpu_s() - before_s) * 1_000)
        return answer

    def _cpu_s(self) -> float:
        found: Any = self.client.info("cpu")
        return float(found["used_cpu_user_main_thread"]) + float(found["used_cpu_sys_main_thread"])


def fill(family: QueueOperations, count: int) -> None:
    """Lease some messages, and enqueue others: of ten one is scheduled, one a retry, and three have unique keys."""
    family.join(OWNER, lease_ms=3_600_000)
    family.enqueue([Entry(f"leased-{number}", BODY, f"leased-key-{number}") for number in range(LEASED)])
    assert len(family.fetch(OWNER, LEASED, request=1).grants) == LEASED
    plain = (Entry(f"plain-{number}", BODY) for number in range(count))
    family.enqueue(itertools.islice(plain, count // 10), delay_ms=3_600_000)
    family.enqueue(itertools.islice(plain, count // 10), lane="retry")
    family.enqueue(Entry(f"keyed-{number}", BODY, f"key-{number}") for number in range(3 * count // 10))
    family.enqueue(itertools.islice(plain, count - 5 * (count // 10)))


def state(family: QueueOperations) -> dict[str, int]:
    """Return how many messages lie in each place, and how many unique keys and notes are held."""
    client, k = family.calls.client, family.keys
    return {
        "waiting": int(client.llen(k.waiting("live")[1])),
        "retry": int(client.llen(k.waiting("retry")[1])),
        "scheduled": int(client.zcard(k.due("live"))),
        "bodies": int(client.hlen(k.bodies)),
        "unique": int(client.hlen(k.unique)),
        "notes": int(client.hlen(k.notes)),
        "leased": int(client.hlen(k.hold(OWNER))) - 1,
        "aside": len(client.keys("*}:aside:undone:*") + client.keys("*}:aside:dropped:*")),
    }


def kill_in_the_middle(server: ServerUnderTest, family: QueueOperations, rng: random.Random, *, steps: int) -> None:
    """Let another process go on with the purge until it is killed -9, after a quarter of these steps at most."""
    [purge] = purges(family)
    last = str(rng.randint(2, steps // 4))
    command = [sys.executable, "-m", "tests.chaos.purging", server.url, PREFIX, PURGED, last]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGKILL
    assert purges(family) == [replace(purge, claim=purges(family)[0].claim)], "it was not killed in the middle"


# A kill at any call is tried in `tests/integration/broker/admin/test_purge.py`.
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_purge_is_exact_after_kills_and_never_holds_the_server_up(server):
    count, rng = 1_000_000, random.Random(78)
    # A fork takes the main thread longer than any call, whatever the server does at the time.
    server.config_set("auto-aof-rewrite-percentage", 0)
    calls = MeasuredCalls(connect(server.url))
    family = QueueOperations(calls, Keys(prefix=PREFIX).queue(PURGED))
    fill(QueueOperations(RedisCalls(connect(server.url)), family.keys), count)
    full = state(family)
    assert full["bodies"] == count + LEASED

    assert set_aside(family, "undone", by="an_operator") == count
    emptied = {name: LEASED if name in ("bodies", "unique", "notes", "leased") else 0 for name in full}
    assert state(family) == emptied | {"aside": 6}
    since = [Entry(f"since-{number}", BODY) for number in range(20_000)]
    family.enqueue(since)
    family.calls.call(script("claim_purge"), [family.keys.purges], ["undone", "undo"])
    for _ in range(KILLS):
        kill_in_the_middle(server, family, rng, steps=len(since) // STEP)
    began_s = time.monotonic()
    finish(family)
    undone_s = time.monotonic() - began_s
    count += len(since)
    assert state(family) == {**full, "waiting": full["waiting"] + len(since), "bodies": count + LEASED}

    assert set_aside(family, "dropped", by="an_operator", undo_ms=0) == count
    for _ in range(KILLS):
        kill_in_the_middle(server, family, rng, steps=count // 4 // STEP)
    began_s = time.monotonic()
    finish(family)
    dropped_s = time.monotonic() - began_s
    assert purges(family) == []
    assert state(family) == emptied
    assert family.enqueue([Entry("keyed-1", BODY, "key-2")]) == ["keyed-1"]
    assert family.ack(OWNER, family.held(OWNER)) == []

    figures = {name: round(max(took_ms), 2) for name, took_ms in calls.took_ms.items()}
    print(f"{count:,}: undone in {undone_s:.1f} s, dropped in {dropped_s:.1f} s, longest calls in ms: {figures}")
    assert max(figures.values()) < LONGEST_MS
    every = sorted(itertools.chain.from_iterable(calls.took_ms.values()))
    assert every[-len(every) // RARE] < USUAL_MS
