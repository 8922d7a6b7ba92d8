"""A keyspace that was emptied, or is another one, is never taken for the old one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from switchyard.broker.health.keyspace_id import KeyspaceId
from switchyard.broker.health.watch import Watch
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from tests.chaos.server import ServerUnderTest, server_binary
from tests.waiting import wait_for

KEYS = Keys("marked")
QUEUES = ("mail", "slow")
PAGE = Path(settings.BASE_DIR, "docs/how-to/back-up-and-restore.md")

Make = Callable[..., Watch]


@pytest.fixture
def make(emptied: ServerUnderTest) -> Iterator[Make]:
    made: list[Watch] = []

    def make(url: str = emptied.url) -> Watch:
        made.append(Watch(RedisCalls(connect(url, profile="quick")), KEYS, QUEUES, production=True))
        return made[-1]

    yield make
    for watch in made:
        watch.close()


def enqueue(url: str) -> None:
    wire = RedisCalls(connect(url))
    QueueOperations(wire, KEYS.queue("slow")).enqueue([Entry("a", b"{}")])
    wire.close()


def test_the_marker_is_made_once_and_by_whoever_comes_first(make: Make, emptied: ServerUnderTest) -> None:
    first, second = make().generation, make().generation

    made = first.prepare()

    assert made and second.prepare() == made == second.seen
    assert emptied.admin.hget(KEYS.generation(), "id") == made.encode()


def test_what_is_not_ours_does_not_count_as_use(make: Make, emptied: ServerUnderTest) -> None:
    emptied.admin.set("session:1", "x")

    assert make().generation.prepare()


def test_a_keyspace_in_use_is_not_marked(make: Make, emptied: ServerUnderTest) -> None:
    enqueue(emptied.url)

    assert make().generation.prepare() == ""
    assert not emptied.admin.exists(KEYS.generation())
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
    assert not emptied.admin.exists(KEYS.generation())


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
    enqueue(emptied.url)
    emptied.admin.save()
    (emptied.aof_path.parents[1] / "dump.rdb").rename(tmp_path / "yard.rdb")
    [commands] = re.findall(r"```sh\n( *mkdir appendonlydir.*?)```", PAGE.read_text(), re.DOTALL)

    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True)

    with ServerUnderTest(tmp_path, binary) as restored:
        for _ in range(2):  # the second time as its append-only file is after a kill
            assert make(restored.url).generation.prepare() == made
            assert restored.admin.hgetall(KEYS.queue("slow").bodies) == {b"a": b"{}"}
            restored.restart()
