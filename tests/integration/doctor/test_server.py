"""Each thing that is wrong with the broker's server is found on a real one, with its cause and the next step."""

from __future__ import annotations

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import redis

from project.topology import YARD
from switchyard.broker.health.keyspace_id import KeyspaceId
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
from tests.integration.doctor.conftest import Configure, of
from tests.waiting import wait_for


def look() -> list[Finding]:
    return run_checks(FindingGroup("broker"), look_at_servers, 20.0)


def test_a_sound_server_is_told_with_its_figures(own_server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pings and commands take what a machine that is busy with other tests gives them.
    monkeypatch.setattr(servers, "SLOW_PING_MS", 1_000.0)
    monkeypatch.setattr(servers, "STALLED_MS", 10_000.0)
    KeyspaceId(RedisCalls(own_server.admin), Keys(), [queue.name for queue in YARD.queues]).prepare()

    findings = look()

    assert {finding.code for finding in findings} == {"ok"}
    assert "noeviction, append-only file" in findings[0].seen
    assert len(findings) == 5


def test_an_evicting_policy_is_an_error_with_the_command_that_mends_it(own_server: ServerUnderTest) -> None:
    own_server.config_set("maxmemory-policy", "allkeys-lru")

    found = of(look(), "error")["evicting"]

    assert "allkeys-lru" in found.seen and "cache" in found.cause
    assert re.match(r'(valkey|redis)-cli -u "\$SWITCHYARD_BROKER_URL" CONFIG SET maxmemory-policy noev', found.next)


def test_a_database_that_the_server_does_not_have_is_an_error(
    own_server: ServerUnderTest, configure: Configure
) -> None:
    configure(broker_url=own_server.url.replace("/0", "/21"))

    found = of(look(), "error")["refused"]

    assert found.seen == "the server has no database of the address's number"
    assert found.next == "Correct the number at the end of SWITCHYARD_BROKER_URL"


def test_the_command_for_the_server_beside_another_one_names_its_own_variable(
    own_server: ServerUnderTest, configure: Configure
) -> None:
    own_server.config_set("maxmemory-policy", "allkeys-lru")
    configure(place_url="elsewhere://127.0.0.1:1/")

    found = of(look(), "error")["evicting"]

    assert re.match(r'(valkey|redis)-cli -u "\$SWITCHYARD_REDIS_URL" CONFIG SET', found.next)


def test_a_password_that_the_server_beside_another_one_refuses_is_told_with_its_own_variable(
    own_server: ServerUnderTest, configure: Configure
) -> None:
    configure(place_url="elsewhere://127.0.0.1:1/", broker_url=own_server.url.replace("://", "://:wrong@"))

    assert of(look(), "error")["refused"].next == "Correct user and password in SWITCHYARD_REDIS_URL"


def test_sentinels_beside_another_one_that_name_no_master_are_told_with_their_variable(configure: Configure) -> None:
    configure(place_url="elsewhere://127.0.0.1:1/", broker_url="redis+sentinel://127.0.0.1:1/yard/0")

    away = of(look(), "error")["away"]

    assert away.seen == "no sentinel names the master"
    assert away.next.startswith("Check sentinels and master's name in SWITCHYARD_REDIS_URL;")


def test_a_full_server_takes_no_work(own_server: ServerUnderTest) -> None:
    own_server.fill()

    assert "memory is full" in of(look(), "error")["takes_no_work"].seen


def test_many_slow_commands_of_ours_are_told_a_few_and_those_of_others_are_not(
    own_server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_one_command_of_ours_that_all_had_to_wait_for_is_told(
    own_server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loop of 100 ms on any machine takes more than the client's second on a busy one.
    monkeypatch.setattr(servers, "STALLED_MS", 20.0)
    own_server.admin.eval("for i = 1, 30000000 do end", 1, "switchyard:key")

    assert "1 of our commands" in of(look(), "warning")["slow"].seen


def test_a_keyspace_that_was_emptied_is_an_error(own_server: ServerUnderTest) -> None:
    own_server.admin.sadd(Keys().generations_missed(), "0123")

    found = of(look(), "error")["keyspace"]

    assert "emptied" in found.seen and "manage.py switchyard broker accept" in found.next


def test_a_used_keyspace_without_a_marker_is_a_warning(own_server: ServerUnderTest) -> None:
    own_server.admin.set(Keys().queue("slow").token, 1)

    found = of(look(), "warning")["unmarked"]

    assert found.next == "manage.py switchyard broker accept"
    assert "Work was sent before the first worker" in found.cause  # on a new server, as well as an earlier release


def test_a_clock_that_differs_is_a_warning(own_server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + 10, perf_counter=time.perf_counter)
    monkeypatch.setattr(servers, "time", clock)

    assert re.search(r"clock is (9\.\d|10\.\d)", of(look(), "warning")["clock_off"].seen)
    assert "behind this machine" in of(look(), "warning")["clock_off"].seen


def test_a_server_far_away_is_a_warning(own_server: ServerUnderTest, configure: Configure) -> None:
    with FaultProxy(own_server.port) as proxy:
        proxy.delay(5)
        configure(broker_url=proxy.url)
        found = of(look(), "warning")["slow"]

    median = re.match(r"20 pings took ([\d.]+) ms", found.seen)
    assert median is not None and float(median[1]) >= 10


def test_a_server_that_is_away_is_an_error_and_no_traceback(own_server: ServerUnderTest) -> None:
    own_server.kill()

    [found] = look()

    assert (found.code, found.severity) == ("away", "error")
    assert "manage.py switchyard broker" in found.next


def test_a_server_without_a_connection_left_is_not_called_away(own_server: ServerUnderTest) -> None:
    own_server.admin.config_set("maxclients", 1)

    [found] = look()

    assert (found.code, found.seen) == ("refused", "the server takes no more connections (maxclients)")
    assert "ss -tnp" in found.next
    reset = broker_away(BROKER, redis.ConnectionError("Error 104 while writing to socket."))
    assert reset.seen == found.seen, "a client that writes at once may lose the server's words"


def test_a_script_that_does_not_end_is_named_with_the_command_that_ends_it(own_server: ServerUnderTest) -> None:
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


def test_a_server_that_stands_still_is_an_error_in_time(own_server: ServerUnderTest) -> None:
    own_server.stop()

    [found] = look()

    assert (found.code, found.severity) == ("hangs", "error")


def test_a_wrong_password_is_told_as_such_and_shown_to_nobody(
    own_server: ServerUnderTest, configure: Configure
) -> None:
    own_server.config_set("requirepass", "right")
    try:
        configure(broker_url=own_server.url.replace("redis://", "redis://:canary@"))
        [found] = look()
    finally:
        connect(own_server.url.replace("redis://", "redis://:right@")).config_set("requirepass", "")

    assert (found.code, found.severity) == ("refused", "error")
    assert "SWITCHYARD_BROKER_URL" in found.next and "canary" not in str(found)


def test_a_user_who_may_not_look_is_told_what_cannot_be_verified(
    own_server: ServerUnderTest, configure: Configure
) -> None:
    own_server.admin.execute_command("ACL", "SETUSER", "yard", "on", ">word", "~*", "+@all", "-info", "-config")
    configure(broker_url=own_server.url.replace("redis://", "redis://yard:word@"))

    assert "+info" in of(look(), "warning")["unverified"].next
