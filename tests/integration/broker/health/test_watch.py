"""A server that starts to lose work, whose keyspace is not the old one, or whose sentinels would, is noticed."""

import contextlib
import logging
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from switchyard.broker.errors import BrokerUnavailable, BrokerUnsafe
from switchyard.broker.health import servers as judged
from switchyard.broker.health.server import KeyspaceId, judge, read_facts
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import Sentinels
from switchyard.broker.redis.sentinel import parse as parse_sentinel_url
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import GROUP, look_at_sentinels, look_at_servers
from switchyard.workers.preflight import Health, Watch
from tests.chaos.server import ServerUnderTest, server_binary
from tests.sentinels import NAME, Sentinel, Watched
from tests.waiting import wait_for

KEYS = Keys("watched")
QUEUES = ("mail", "slow")
EVICTING = (
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
)  # fmt: skip

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
def test_each_evicting_policy_is_an_error_with_its_remedy(emptied, policy):
    emptied.config_set("maxmemory-policy", policy)

    [found] = judge(read_facts(RedisCalls(emptied.admin)), production=False)

    assert (found.code, found.severity) == ("evicting", "error")
    assert policy in found.seen and "CONFIG SET maxmemory-policy noeviction" in found.remedy


def test_a_policy_that_is_set_live_stops_enqueuing_and_nothing_else(make, emptied, family, caplog):
    caplog.set_level(logging.INFO, "switchyard.broker")
    watch = make()
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


def test_the_refusal_lapses_with_whoever_wrote_it_and_one_without_an_end_gets_one(make, emptied, family):
    emptied.admin.set(family.keys.refused, "forged")
    assert make().look() == Health()
    assert 0 < emptied.admin.pttl(family.keys.refused) <= 20_000

    emptied.config_set("maxmemory-policy", "allkeys-lru")
    make().look()

    assert 0 < emptied.admin.pttl(family.keys.refused) <= 20_000
    assert all(emptied.admin.exists(KEYS.queue(queue).refused) for queue in QUEUES)


def test_memory_that_runs_out_is_told_before_it_is_full(make, emptied):
    used_bytes = int(emptied.admin.info("memory")["used_memory"])  # type: ignore[index]
    emptied.config_set("maxmemory", int(used_bytes / 0.95))

    health = make().look()

    assert codes(health) == ["nearly_full"] and not health.red
    assert re.search(r"uses 9\d % of its memory", health.findings[0].seen)


def test_persistence_that_is_switched_off_is_red_in_production(make, emptied):
    watch = make()
    emptied.config_set("appendonly", "no")
    assert codes(watch.look()) == ["nothing_kept"] and watch.health.red

    emptied.config_set("save", "3600 1")
    assert codes(watch.look()) == ["snapshots_only"] and not watch.health.red


def test_a_user_who_may_not_ask_cannot_verify(emptied):
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
def test_a_server_that_hangs_costs_a_look_two_seconds_at_most(make, emptied, within_s):
    watch = make()
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


def test_a_key_of_another_type_is_a_red_flag(make, emptied):
    emptied.admin.set(KEYS.generation(), "text")

    health = make().look()

    assert codes(health) == ["unreadable"] and health.red


def test_a_queues_key_of_another_type_is_a_red_flag_that_names_it(make, emptied, family):
    watch = make()
    emptied.admin.set(family.keys.bodies, "text")

    health = watch.look()

    assert codes(health) == ["wrong_type"] and health.red
    assert family.keys.bodies in health.findings[0].seen
    emptied.admin.delete(family.keys.bodies)
    assert watch.look() == Health()
    emptied.admin.set(family.keys.bodies, "text")
    assert watch.look() == Health(), "types are looked at once a minute, and each time while one is wrong"


def test_every_key_of_a_family_in_use_has_the_type_that_is_looked_for(make, emptied, family):
    work_in(family)
    known = dict(family.keys.kinds())

    found = {str(key, "ascii"): str(emptied.admin.type(key), "ascii") for key in emptied.admin.scan_iter()}

    assert make().look() == Health()
    assert {key: kind for key, kind in found.items() if key in known} == {
        key: known[key] for key in found if key in known
    }
    assert all(":hold:" in key for key in found if key not in known), "every other key is an owner's"
    assert len(found) >= 8


@pytest.mark.parametrize("name", ["a", "a.low", "a.due", "a-x", "a-retry.high", "..", "-", "_"])
def test_work_in_one_family_touches_no_other(emptied, family, name):
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
    family.enqueue([Entry(f"{n}", b"{}", unique_key=f"key {n}") for n in range(4)])
    family.enqueue([Entry("late", b"{}")], delay_ms=60_000, lane="retry", level=1)
    family.join("w/live")
    grants = family.fetch("w/live", 3, request=1).grants
    family.ack("w/live", [grants[0].lease])
    family.dead_letter(grants[1].lease, b"{}")
    family.quarantine(grants[2].lease, b"{}")
    administration.pause(family)
    family.lapsed()


def marked(make: Make) -> Watch:
    """Return a watch that has seen the marker of the keyspace."""
    watch = make()
    watch.generation.prepare()
    return watch


def enqueue_at(url: str) -> None:
    wire = RedisCalls(connect(url))
    QueueOperations(wire, KEYS.queue("slow")).enqueue([Entry("a", b"{}")])
    wire.close()


def test_the_marker_is_made_once_and_by_whoever_comes_first(make, emptied):
    first, second = make().generation, make().generation
    emptied.admin.set("session:1", "x")  # what is not ours does not count as use

    made = first.prepare()

    assert made and second.prepare() == made == second.seen
    assert emptied.admin.hget(KEYS.generation(), "id") == made.encode()


def test_a_keyspace_in_use_is_not_marked(make, emptied):
    enqueue_at(emptied.url)

    assert make().generation.prepare() == ""
    assert not emptied.admin.exists(KEYS.generation())
    assert not make().look().pause  # who has seen no marker misses none


def test_those_who_saw_the_marker_pause_when_it_is_gone(make, emptied):
    watch = marked(make)
    assert watch.look().pause == ""

    emptied.admin.flushdb()
    health = watch.look()

    assert "emptied" in health.pause and health.red
    assert "manage.py switchyard broker accept" in health.findings[0].remedy
    assert [item.code for item in health.news] == ["keyspace"]
    assert watch.look().news == ()
    late = make()  # who starts later neither makes it anew nor goes on
    assert late.generation.prepare() == ""
    assert late.look().pause
    assert not emptied.admin.exists(KEYS.generation())


def test_a_person_accepts_what_is_there_and_all_go_on(make, emptied):
    watches = [marked(make), marked(make)]
    emptied.admin.flushdb()
    assert all(watch.look().pause for watch in watches)

    accepted = make().generation.accept()

    assert not any(watch.look().pause for watch in watches)
    assert {watch.generation.seen for watch in watches} == {accepted}
    emptied.admin.flushdb()
    assert all(watch.look().pause for watch in watches)  # and it is watched as the old one was


def test_another_marker_pauses_only_those_who_knew_the_first(make, emptied):
    watch = marked(make)
    emptied.admin.flushdb()
    other = marked(make)

    assert "another marker" in watch.look().pause
    assert not other.look().pause
    assert not make().look().pause
    other.generation.accept()
    assert not watch.look().pause and not other.look().pause


def test_another_database_of_the_server_is_noticed(make, emptied):
    watch = marked(make)
    moved = make(emptied.url.removesuffix("/0") + "/1")
    moved.generation.seen = watch.generation.seen  # the same process, led elsewhere

    assert moved.look().pause
    assert not watch.look().pause


def test_what_is_known_of_the_keyspace_holds_while_the_server_is_away(make, emptied):
    watch = marked(make)
    emptied.admin.flushdb()
    watch.look()
    emptied.kill()
    away = watch.look()
    emptied.restart()

    assert [item.code for item in away.findings] == ["keyspace", "away"] and away.pause
    assert watch.look().pause


def test_a_marker_survives_a_restart_of_the_server(make, emptied):
    watch = make()
    emptied.sync_each_write()
    watch.generation.prepare()

    emptied.restart()

    # The first look may find the server too slow on a busy machine; one that misses the marker never ends the pause.
    wait_for(lambda: watch.look().pause == "")


def test_a_full_server_can_be_marked_and_accepted(make, emptied):
    emptied.fill()
    generation: KeyspaceId = make().generation

    assert generation.prepare()
    assert generation.accept() == generation.seen


def test_copy_that_is_restored_as_the_page_says_is_the_keyspace_with_its_messages(make, emptied, tmp_path, request):
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
            assert restored.admin.hgetall(KEYS.queue("slow").bodies) == {b"a": b"{}"}
            restored.restart()


@pytest.fixture
def watched(sentinels: Watched, settings: Any) -> Iterator[Watched]:
    """The yard's broker is the master that the sentinels name."""
    sentinels.wait_until_settled()
    settings.SWITCHYARD = replace(settings.SWITCHYARD, broker_url=sentinels.url)
    yield sentinels
    sentinels.wait_until_settled()


def found() -> dict[str, Finding]:
    """Return code -> finding about the sentinels."""
    return {finding.code: finding for finding in run_checks(GROUP, look_at_sentinels, 20.0)}


@contextlib.contextmanager
def stopped(*processes: Sentinel) -> Iterator[None]:
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


def test_the_master_is_named_with_those_who_say_so(watched):
    findings = found()

    assert list(findings) == ["ok"]
    assert findings["ok"].seen == (
        f"3 of 3 sentinels name 127.0.0.1:{watched.master_port()} as the master; 2 of 3 have to agree on another; "
        "1 replica follows it"
    )


def test_sentinels_that_are_too_few_for_a_failover_are_told(watched):
    with stopped(*watched.sentinels[1:]):
        short = wait_for(lambda: found().get("no_quorum"))
        silent = found()["sentinel_away"]
    settled = wait_for(lambda: "no_quorum" not in found())

    assert short.severity == "warning" and settled
    assert f"127.0.0.1:{watched.sentinels[0].port} reaches 1 of 3, 2 have to agree" in short.seen
    assert silent.seen.startswith("2 of 3 sentinels name no master: ") and "does not answer" in silent.seen


def test_a_sentinel_of_another_master_is_told(watched, settings):
    url = watched.url.replace(f":{watched.sentinels[2].port}/", ":1/").replace(f"/{NAME}/", "/yrad/")
    settings.SWITCHYARD = replace(settings.SWITCHYARD, broker_url=url)

    findings = found()
    [away] = run_checks(GROUP, look_at_servers, 20.0)

    assert list(findings) == ["sentinel_away", "sentinel_refuses"]
    assert findings["sentinel_away"].seen.startswith("1 of 3 sentinels name no master: 127.0.0.1:1 is away")
    assert findings["sentinel_refuses"].seen.startswith("2 of 3 sentinels name no master: ")
    assert "knows no master 'yrad'" in findings["sentinel_refuses"].seen
    assert findings["sentinel_refuses"].next.endswith("or in SWITCHYARD_BROKER_URL.")
    assert (away.code, away.seen) == ("away", "no sentinel names the master")


def test_a_command_of_a_finding_names_the_master(watched):
    finding = Finding("broker", "stalls", "warning", "it blocks", next="valkey-cli CONFIG SET appendonly yes")

    [found] = run_checks(GROUP, lambda: [finding], 20.0)

    assert found.next.endswith(f"-cli -h 127.0.0.1 -p {watched.master.port} CONFIG SET appendonly yes")


def test_a_replica_that_is_silent_or_gone_is_told(watched, monkeypatch):
    monkeypatch.setattr(judged, "SILENT_S", 1)
    replica: ServerUnderTest = watched.replica
    replica.stop()
    try:
        behind = wait_for(lambda: found().get("replica_behind"))
    finally:
        replica.cont()
    replica.kill()
    gone = wait_for(lambda: found().get("no_replica"))
    replica.restart()
    replica.admin.execute_command("REPLICAOF", "127.0.0.1", str(watched.master.port))
    wait_for(lambda: list(found()) == ["ok"])

    assert f"127.0.0.1:{replica.port} has been silent for " in behind.seen
    assert gone.seen == (
        "none of 1 replicas that the sentinels know is connected to the master: nothing takes over when it fails"
    )


def test_a_master_that_is_down_is_told_apart_from_sentinels_that_are(watched):
    former = watched.master
    with stopped(*watched.sentinels[:2]):  # so that none replaces it
        former.kill()
        [away] = wait_for(lambda: run_checks(GROUP, look_at_servers, 20.0))
        named = found()["ok"].seen
        former.restart()

    assert away.code == "away" and away.seen.startswith("the master that the sentinels name does not answer")
    assert named.startswith(f"1 of 3 sentinels name 127.0.0.1:{former.port} as the master")


@pytest.mark.parametrize(
    ("replica", "said"),
    [
        ({"state": "online", "lag": 1, "offset": 5_000_000}, []),
        ({"state": "wait_bgsave", "lag": 1, "offset": 0}, ["is being copied to (wait_bgsave)"]),
        ({"state": "online", "lag": 1, "offset": 3_000_000}, ["lacks 2,000,000 bytes of writes"]),
    ],
)
def test_a_replica_is_behind_by_its_state_or_its_bytes(replica, said):
    info = {"role": "master", "slave0": {"ip": "a", "port": 1, **replica}, "master_repl_offset": 5_000_000}

    findings = judged.judge_replicas(info, known=1)

    assert [finding.seen.removeprefix("replicas are behind the master: a:1 ") for finding in findings] == said
    missing = judged.judge_replicas(info, known=2)[0]
    assert "1 of 2 replicas that the sentinels know is not connected; connected: a:1" in missing.seen
    assert ("Read the replica's log" in missing.remedy, "Start the missing one" in missing.remedy) == (bool(said), True)


@pytest.mark.parametrize(
    ("options", "text", "said", "step"),
    [
        ("", "Error while reading from a:1 : (104, 'Connection reset by peer')", "takes TLS alone", judged.SPEAK_TLS),
        ("", "Connection closed by server.", "takes TLS alone", judged.SPEAK_TLS),
        ("s", "Connection closed by server.", "ends the connection", judged.READ_ITS_LOG),
        ("s?sentinel_ssl=no", "Connection closed by server.", "takes TLS alone", judged.TLS_LEFT_OUT),
        ("", "Error 111 connecting to a:1. Connection refused.", "is away", ""),
    ],
)
def test_a_sentinel_that_ends_connections_is_told_apart_from_one_that_is_away(options, text, said, step):
    class Refusing(Sentinels):
        def ask(self, *args: object) -> list[Any]:
            raise redis.ConnectionError(text)

    secure, _, query = options.partition("?")
    url = f"redis{secure}+sentinel://a:1/yard/0{f'?{query}' if query else ''}"
    [state] = judged.read_sentinels(Refusing(parse_sentinel_url(url), {}))

    assert said in state.failure
    assert state.step.startswith(step) and bool(state.step) == bool(step)


def test_sentinels_of_different_opinions_are_told():
    states = [judged.SentinelState(name, master=master, usable=3) for name, master in (("a:1", "x:1"), ("b:1", "y:1"))]

    [split] = judged.judge_sentinels(states)

    assert split.seen == "the sentinels name different masters: a:1 names x:1; b:1 names y:1"
