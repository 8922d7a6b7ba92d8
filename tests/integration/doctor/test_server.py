"""Each thing that is wrong with the broker's server is found on a real one, with its cause and the next step."""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import redis

from project.topology import YARD
from switchyard.broker.health.server import KeyspaceId
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.operations.findings import servers
from switchyard.operations.findings.examine import broker_away, run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from switchyard.operations.findings.servers import GROUP as BROKER
from switchyard.operations.findings.servers import look_at_servers
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.server import ServerUnderTest, connect_once
from tests.integration.doctor.conftest import of
from tests.waiting import wait_for


def look() -> list[Finding]:
    return run_checks(FindingGroup("broker"), look_at_servers, 20.0)


CLI, ELSEWHERE = "(valkey|redis)-cli", "elsewhere://127.0.0.1:1/"
NO_CONNECTION = r"the server takes no more connections \(maxclients\)"


def test_a_sound_server_is_told_with_its_figures(own_server, monkeypatch):
    # Pings and commands take what a machine that is busy with other tests gives them.
    monkeypatch.setattr(servers, "SLOW_PING_MS", 1_000.0)
    monkeypatch.setattr(servers, "STALLED_MS", 10_000.0)
    KeyspaceId(RedisCalls(own_server.admin), Keys(), [queue.name for queue in YARD.queues]).prepare()

    findings = look()

    assert {finding.code for finding in findings} == {"ok"}
    assert "noeviction, append-only file" in findings[0].seen
    assert len(findings) == 5


def evict(server: ServerUnderTest) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")


@pytest.mark.parametrize(
    ("harm", "severity", "code", "said", "step"),
    [
        (
            evict,
            *("error", "evicting", "allkeys-lru.*cache"),
            rf'{CLI} -u "\$SWITCHYARD_BROKER_URL" CONFIG SET maxmemory-policy',
        ),
        (ServerUnderTest.fill, "error", "takes_no_work", "memory is full", ""),
        (
            lambda server: server.admin.sadd(Keys().generations_missed(), "0123"),
            *("error", "keyspace", "emptied", r".*manage\.py switchyard broker accept"),
        ),
        (  # on a new server, as well as an earlier release
            lambda server: server.admin.set(Keys().queue("slow").token, 1),
            *("warning", "unmarked", "Work was sent before the first worker", r"manage\.py switchyard broker accept$"),
        ),
        (ServerUnderTest.kill, "error", "away", "", r".*manage\.py switchyard broker"),
        (ServerUnderTest.stop, "error", "hangs", "", ""),
        (lambda server: server.admin.config_set("maxclients", 1), "error", "refused", NO_CONNECTION, ".*ss -tnp"),
    ],
)
def test_what_is_wrong_is_told_with_its_cause_and_the_next_step(own_server, harm, severity, code, said, step):
    harm(own_server)

    findings = look()

    found = of(findings, severity)[code]
    assert re.search(said, f"{found.seen} {found.cause}") and re.match(step, found.next), found
    assert len(findings) == 1 or code not in ("away", "hangs", "refused")


def test_a_client_that_writes_at_once_may_lose_the_words_of_a_server_without_a_connection_left(own_server):
    own_server.admin.config_set("maxclients", 1)

    reset = broker_away(BROKER, redis.ConnectionError("Error 104 while writing to socket."))

    assert re.fullmatch(NO_CONNECTION, reset.seen)


@pytest.mark.parametrize(
    ("place_url", "change", "seen", "step"),
    [
        ("", ("/0", "/21"), "has no database of the address's number", "Correct the number at the end of {}"),
        (ELSEWHERE, ("://", "://:wrong@"), "", "Correct user and password in {}"),
    ],
)
def test_an_address_that_the_server_refuses_is_an_error_with_its_own_variable(
    own_server, configure, place_url, change, seen, step
):
    configure(place_url=place_url, broker_url=own_server.url.replace(*change))

    found = of(look(), "error")["refused"]

    assert seen in found.seen
    assert found.next == step.format("SWITCHYARD_REDIS_URL" if place_url else "SWITCHYARD_BROKER_URL")


def test_a_server_and_sentinels_beside_another_one_are_told_with_their_variable(own_server, configure):
    evict(own_server)
    configure(place_url=ELSEWHERE)
    evicting = of(look(), "error")["evicting"]
    configure(place_url=ELSEWHERE, broker_url="redis+sentinel://127.0.0.1:1/yard/0")

    away = of(look(), "error")["away"]

    assert re.match(rf'{CLI} -u "\$SWITCHYARD_REDIS_URL" CONFIG SET', evicting.next)
    assert away.seen == "no sentinel names the master"
    assert away.next.startswith("Check sentinels and master's name in SWITCHYARD_REDIS_URL;")


def test_many_slow_commands_of_ours_are_told_a_few_and_those_of_others_are_not(own_server, monkeypatch):
    monkeypatch.setattr(servers, "STALLED_MS", 10_000.0)

    def log_slow(key: str, times: int) -> None:
        own_server.config_set("slowlog-log-slower-than", 0)
        for _ in range(times):
            own_server.admin.set(key, 1)
        own_server.config_set("slowlog-log-slower-than", -1)

    log_slow("another:key", 20)
    assert look()[-1].seen.startswith("its slow log holds no command of ours")
    log_slow("switchyard:key", 9)
    assert re.search(r"9 of our commands, the longest \d+ ms \(SET\)", look()[-1].seen)
    log_slow("switchyard:key", 1)
    assert "10 of our commands" in of(look(), "warning")["slow"].seen


def test_one_command_of_ours_that_all_had_to_wait_for_is_told(own_server, monkeypatch):
    # A loop of 100 ms on any machine takes more than the client's second on a busy one.
    monkeypatch.setattr(servers, "STALLED_MS", 20.0)
    own_server.admin.eval("for i = 1, 30000000 do end", 1, "switchyard:key")

    assert "1 of our commands" in of(look(), "warning")["slow"].seen


def test_a_clock_that_differs_is_a_warning(own_server, monkeypatch):
    clock = SimpleNamespace(time=lambda: time.time() + 10, perf_counter=time.perf_counter)
    monkeypatch.setattr(servers, "time", clock)

    assert re.search(r"clock is (9\.\d|10\.\d)", of(look(), "warning")["clock_off"].seen)
    assert "behind this machine" in of(look(), "warning")["clock_off"].seen


def test_a_server_far_away_is_a_warning(own_server, configure):
    with FaultProxy(own_server.port) as proxy:
        proxy.delay(5)
        configure(broker_url=proxy.url)
        found = of(look(), "warning")["slow"]

    median = re.match(r"20 pings took ([\d.]+) ms", found.seen)
    assert median is not None and float(median[1]) >= 10


def test_a_script_that_does_not_end_is_named_with_the_command_that_ends_it(own_server):
    own_server.config_set("busy-reply-threshold", 50)
    with contextlib.closing(connect_once(own_server.url)) as other, ThreadPoolExecutor(1) as thread:
        ended = thread.submit(other.execute_command, "EVAL", "while true do end", 0)
        try:
            wait_for(partial(_is_busy, own_server), what="the script to be called busy")
            [found] = look()
        finally:
            own_server.admin.script_kill()
        with pytest.raises(redis.ResponseError, match="killed"):
            ended.result(30)

    assert (found.code, found.seen) == ("refused", "the server runs a script that does not end")
    assert "SCRIPT KILL" in found.next


def _is_busy(server: ServerUnderTest) -> bool:
    try:
        server.admin.ping()
    except redis.ResponseError as error:
        return str(error).startswith("BUSY ")
    return False


def test_a_wrong_password_is_told_as_such_and_shown_to_nobody(own_server, configure):
    own_server.config_set("requirepass", "right")
    try:
        configure(broker_url=own_server.url.replace("redis://", "redis://:canary@"))
        [found] = look()
    finally:
        connect(own_server.url.replace("redis://", "redis://:right@")).config_set("requirepass", "")

    assert (found.code, found.severity) == ("refused", "error")
    assert "SWITCHYARD_BROKER_URL" in found.next and "canary" not in str(found)


def test_a_user_who_may_not_look_is_told_what_cannot_be_verified(own_server, configure):
    own_server.admin.execute_command("ACL", "SETUSER", "yard", "on", ">word", "~*", "+@all", "-info", "-config")
    configure(broker_url=own_server.url.replace("redis://", "redis://yard:word@"))

    assert "+info" in of(look(), "warning")["unverified"].next
