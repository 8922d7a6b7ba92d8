"""A server that starts to lose work, or whose keyspace is not the old one, is noticed meanwhile, and given none."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
from django.conf import settings

from switchyard.broker.errors import BrokerUnavailable, BrokerUnsafe
from switchyard.broker.health.server import KeyspaceId, judge, read_facts
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.workers.preflight import Health, Watch
from tests.chaos.server import ServerUnderTest, server_binary
from tests.waiting import wait_for

KEYS = Keys("watched")
QUEUES = ("mail", "slow")
EVICTING = (
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
)  # fmt: skip

MakeWatch = Callable[[], Watch]


@pytest.fixture
def make_watch(emptied: ServerUnderTest) -> Iterator[MakeWatch]:
    made: list[Watch] = []

    def make() -> Watch:
        made.append(Watch(RedisCalls(connect(emptied.url, profile="quick")), KEYS, QUEUES, production=True))
        return made[-1]

    yield make
    for watch in made:
        watch.close()


@pytest.fixture
def family(emptied: ServerUnderTest) -> Iterator[QueueOperations]:
    wire = RedisCalls(connect(emptied.url))
    yield QueueOperations(wire, KEYS.queue("mail"))
    wire.close()


def codes(health: Health) -> list[str]:
    return [item.code for item in health.findings]


def enqueue(family: QueueOperations, id_: str) -> None:
    assert family.enqueue([Entry(id_, b"{}")]) == [id_]


@pytest.mark.parametrize("policy", EVICTING)
def test_each_evicting_policy_is_an_error_with_its_remedy(emptied: ServerUnderTest, policy: str) -> None:
    emptied.config_set("maxmemory-policy", policy)

    [found] = judge(read_facts(RedisCalls(emptied.admin)), production=False)

    assert (found.code, found.severity) == ("evicting", "error")
    assert policy in found.seen and "CONFIG SET maxmemory-policy noeviction" in found.remedy


def test_a_policy_that_is_set_live_stops_enqueuing_and_nothing_else(
    make_watch: MakeWatch, emptied: ServerUnderTest, family: QueueOperations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "switchyard.broker")
    watch = make_watch()
    watch.look()
    enqueue(family, "before")
    family.join("w/live")

    emptied.config_set("maxmemory-policy", "volatile-lru")
    first, second = watch.look(), watch.look()

    assert first.red and codes(first) == [item.code for item in first.news] == ["evicting"]
    assert codes(second) == ["evicting"] and second.news == ()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(BrokerUnsafe, match=r"volatile-lru.*CONFIG SET maxmemory-policy noeviction") as refused:
        enqueue(family, "after")
    assert isinstance(refused.value, BrokerUnavailable) and refused.value.outcome == "refused"
    [grant] = family.fetch("w/live", 1, request=1).grants
    assert family.move(grant.lease, move="divert", lane="retry", body=b"{}", delay_ms=0)

    emptied.config_set("maxmemory-policy", "noeviction")
    assert watch.look() == Health()
    enqueue(family, "after")


def test_the_refusal_lapses_with_whoever_wrote_it(
    make_watch: MakeWatch, emptied: ServerUnderTest, family: QueueOperations
) -> None:
    emptied.config_set("maxmemory-policy", "allkeys-lru")
    make_watch().look()

    left_ms = emptied.admin.pttl(family.keys.refused)

    assert 0 < left_ms <= 20_000
    assert all(emptied.admin.exists(KEYS.queue(queue).refused) for queue in QUEUES)


def test_a_refusal_without_an_end_gets_one(
    make_watch: MakeWatch, emptied: ServerUnderTest, family: QueueOperations
) -> None:
    emptied.admin.set(family.keys.refused, "forged")

    assert make_watch().look() == Health()
    assert 0 < emptied.admin.pttl(family.keys.refused) <= 20_000


def test_memory_that_runs_out_is_told_before_it_is_full(make_watch: MakeWatch, emptied: ServerUnderTest) -> None:
    used_bytes = int(emptied.admin.info("memory")["used_memory"])  # type: ignore[index]
    emptied.config_set("maxmemory", int(used_bytes / 0.95))

    health = make_watch().look()

    assert codes(health) == ["nearly_full"] and not health.red
    assert re.search(r"uses 9\d % of its memory", health.findings[0].seen)


def test_persistence_that_is_switched_off_is_red_in_production(make_watch: MakeWatch, emptied: ServerUnderTest) -> None:
    watch = make_watch()
    emptied.config_set("appendonly", "no")
    assert codes(watch.look()) == ["nothing_kept"] and watch.health.red

    emptied.config_set("save", "3600 1")
    assert codes(watch.look()) == ["snapshots_only"] and not watch.health.red


def test_a_user_who_may_not_ask_cannot_verify(emptied: ServerUnderTest) -> None:
    emptied.admin.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-config")
    client = connect(emptied.url.replace("redis://", "redis://plain:secret@"), profile="quick")
    watch = Watch(RedisCalls(client), KEYS, QUEUES, production=True)

    without_config = watch.look()
    emptied.config_set("maxmemory-policy", "allkeys-lru")
    with_eviction = watch.look()
    emptied.admin.execute_command("ACL", "SETUSER", "plain", "-info")
    without_info = watch.look()
    client.close()

    assert (codes(without_config), codes(with_eviction)) == ([], ["evicting"])  # INFO tells enough
    assert codes(without_info) == ["unverified"] and "cannot be verified" in without_info.findings[0].seen


@pytest.mark.parametrize("within_s", [inf, pytest.param(2.5, marks=pytest.mark.long)])
def test_a_server_that_hangs_costs_a_look_two_seconds_at_most(
    make_watch: MakeWatch, emptied: ServerUnderTest, within_s: float
) -> None:
    watch = make_watch()
    watch.look()
    emptied.stop()
    try:
        started = time.monotonic()
        health = watch.look()
        took_s = time.monotonic() - started
    finally:
        emptied.cont()

    assert codes(health) == ["away"] and not health.red
    assert took_s < within_s
    assert watch.look() == Health()


def test_a_key_of_another_type_is_a_red_flag(make_watch: MakeWatch, emptied: ServerUnderTest) -> None:
    emptied.admin.set(KEYS.generation(), "text")

    health = make_watch().look()

    assert codes(health) == ["unreadable"] and health.red


def test_a_queues_key_of_another_type_is_a_red_flag_that_names_it(
    make_watch: MakeWatch, emptied: ServerUnderTest, family: QueueOperations
) -> None:
    watch = make_watch()
    emptied.admin.set(family.keys.bodies, "text")

    health = watch.look()

    assert codes(health) == ["wrong_type"] and health.red
    assert family.keys.bodies in health.findings[0].seen
    emptied.admin.delete(family.keys.bodies)
    assert watch.look() == Health()
    emptied.admin.set(family.keys.bodies, "text")
    assert watch.look() == Health(), "types are looked at once a minute, and each time while one is wrong"


def test_every_key_of_a_family_in_use_has_the_type_that_is_looked_for(
    make_watch: MakeWatch, emptied: ServerUnderTest, family: QueueOperations
) -> None:
    work_in(family)
    known = dict(family.keys.kinds())

    found = {str(key, "ascii"): str(emptied.admin.type(key), "ascii") for key in emptied.admin.scan_iter()}

    assert make_watch().look() == Health()
    assert {key: kind for key, kind in found.items() if key in known} == {
        key: known[key] for key in found if key in known
    }
    assert all(":hold:" in key for key in found if key not in known), "every other key is an owner's"
    assert len(found) >= 8


@pytest.mark.parametrize("name", ["a", "a.low", "a.due", "a-x", "a-retry.high", "..", "-", "_"])
def test_work_in_one_family_touches_no_other(emptied: ServerUnderTest, family: QueueOperations, name: str) -> None:
    others = [
        QueueOperations(family.calls, KEYS.queue(other)) for other in ("a", "a.low", "a-x", ".", "__") if other != name
    ]
    for other in others:
        enqueue(other, "id")
    before = {key: emptied.admin.dump(key) for key in emptied.admin.scan_iter()}

    work_in(QueueOperations(family.calls, KEYS.queue(name)))

    assert before
    assert {key: emptied.admin.dump(key) for key in before} == before


def work_in(family: QueueOperations) -> None:
    """Do something of everything in a family."""
    family.enqueue([Entry(f"{n}", b"{}", unique_key=f"key {n}") for n in range(4)])
    family.enqueue([Entry("late", b"{}")], delay_ms=60_000, lane="retry", level=1)
    family.join("w/live")
    grants = family.fetch("w/live", 3, request=1).grants
    family.ack("w/live", [grants[0].lease])
    family.dead_letter(grants[1].lease, b"{}")
    family.quarantine(grants[2].lease, b"{}")
    administration.pause(family)
    family.lapsed()


MARKED = Keys("marked")
PAGE = Path(settings.BASE_DIR, "docs/how-to/back-up-and-restore.md")

Make = Callable[..., Watch]


@pytest.fixture
def make(emptied: ServerUnderTest) -> Iterator[Make]:
    made: list[Watch] = []

    def make(url: str = emptied.url) -> Watch:
        made.append(Watch(RedisCalls(connect(url, profile="quick")), MARKED, QUEUES, production=True))
        return made[-1]

    yield make
    for watch in made:
        watch.close()


def enqueue_at(url: str) -> None:
    wire = RedisCalls(connect(url))
    QueueOperations(wire, MARKED.queue("slow")).enqueue([Entry("a", b"{}")])
    wire.close()


def test_the_marker_is_made_once_and_by_whoever_comes_first(make: Make, emptied: ServerUnderTest) -> None:
    first, second = make().generation, make().generation

    made = first.prepare()

    assert made and second.prepare() == made == second.seen
    assert emptied.admin.hget(MARKED.generation(), "id") == made.encode()


def test_what_is_not_ours_does_not_count_as_use(make: Make, emptied: ServerUnderTest) -> None:
    emptied.admin.set("session:1", "x")

    assert make().generation.prepare()


def test_a_keyspace_in_use_is_not_marked(make: Make, emptied: ServerUnderTest) -> None:
    enqueue_at(emptied.url)

    assert make().generation.prepare() == ""
    assert not emptied.admin.exists(MARKED.generation())
    assert not make().look().pause  # who has seen no marker misses none


def test_those_who_saw_the_marker_pause_when_it_is_gone(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    watch.generation.prepare()
    assert watch.look().pause == ""

    emptied.admin.flushdb()
    health = watch.look()

    assert "emptied" in health.pause and health.red
    assert "manage.py switchyard broker accept" in health.findings[0].remedy
    assert [item.code for item in health.news] == ["keyspace"]
    assert watch.look().news == ()
    assert not emptied.admin.exists(MARKED.generation())


def test_nobody_who_starts_later_makes_it_anew_or_goes_on(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    watch.generation.prepare()
    emptied.admin.flushdb()
    watch.look()

    late = make()

    assert late.generation.prepare() == ""
    assert late.look().pause


def test_a_person_accepts_what_is_there_and_all_go_on(make: Make, emptied: ServerUnderTest) -> None:
    watches = [make(), make()]
    for watch in watches:
        watch.generation.prepare()
    emptied.admin.flushdb()
    assert all(watch.look().pause for watch in watches)

    accepted = make().generation.accept()

    assert not any(watch.look().pause for watch in watches)
    assert {watch.generation.seen for watch in watches} == {accepted}
    emptied.admin.flushdb()
    assert all(watch.look().pause for watch in watches)  # and it is watched as the old one was


def test_another_marker_pauses_only_those_who_knew_the_first(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    watch.generation.prepare()
    emptied.admin.flushdb()
    other = make()
    other.generation.prepare()

    assert "another marker" in watch.look().pause
    assert not other.look().pause
    assert not make().look().pause
    other.generation.accept()
    assert not watch.look().pause and not other.look().pause


def test_another_database_of_the_server_is_noticed(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    watch.generation.prepare()
    moved = make(emptied.url.removesuffix("/0") + "/1")
    moved.generation.seen = watch.generation.seen  # the same process, led elsewhere

    assert moved.look().pause
    assert not watch.look().pause


def test_what_is_known_of_the_keyspace_holds_while_the_server_is_away(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    watch.generation.prepare()
    emptied.admin.flushdb()
    watch.look()
    emptied.kill()
    away = watch.look()
    emptied.restart()

    assert [item.code for item in away.findings] == ["keyspace", "away"] and away.pause
    assert watch.look().pause


def test_a_marker_survives_a_restart_of_the_server(make: Make, emptied: ServerUnderTest) -> None:
    watch = make()
    emptied.sync_each_write()
    watch.generation.prepare()

    emptied.restart()

    # The first look may find the server too slow on a busy machine; one that misses the marker never ends the pause.
    wait_for(lambda: watch.look().pause == "")


def test_a_full_server_can_be_marked_and_accepted(make: Make, emptied: ServerUnderTest) -> None:
    emptied.fill()
    generation: KeyspaceId = make().generation

    assert generation.prepare()
    assert generation.accept() == generation.seen


def test_copy_that_is_restored_as_the_page_says_is_the_keyspace_with_its_messages(
    make: Make, emptied: ServerUnderTest, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    binary = server_binary(request.node.callspec.params["server"])
    made = make().generation.prepare()
    enqueue_at(emptied.url)
    emptied.admin.save()
    (emptied.aof_path.parents[1] / "dump.rdb").rename(tmp_path / "yard.rdb")
    [commands] = re.findall(r"```sh\n( *mkdir appendonlydir.*?)```", PAGE.read_text(), re.DOTALL)

    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True)

    with ServerUnderTest(tmp_path, binary) as restored:
        for _ in range(2):  # the second time as its append-only file is after a kill
            assert make(restored.url).generation.prepare() == made
            assert restored.admin.hgetall(MARKED.queue("slow").bodies) == {b"a": b"{}"}
            restored.restart()
