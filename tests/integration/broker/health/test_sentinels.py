"""The doctor asks sentinels and replicas: who is the master, and what would not replace it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from switchyard.broker.health import servers as judged
from switchyard.broker.redis.sentinel import Sentinels
from switchyard.broker.redis.sentinel import parse as parse_sentinel_url
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import GROUP, look_at_sentinels, look_at_servers
from tests.chaos.server import ServerUnderTest
from tests.sentinels import NAME, Sentinel, Watched
from tests.waiting import wait_for


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
    """Stop sentinels for the time of the block."""
    for process in processes:
        process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.signal(signal.SIGCONT)


def test_the_master_is_named_with_those_who_say_so(watched: Watched) -> None:
    findings = found()

    assert list(findings) == ["ok"]
    assert findings["ok"].seen == (
        f"3 of 3 sentinels name 127.0.0.1:{watched.master_port()} as the master; 2 of 3 have to agree on another; "
        "1 replica follows it"
    )


def test_sentinels_that_are_too_few_for_a_failover_are_told(watched: Watched) -> None:
    with stopped(*watched.sentinels[1:]):
        short = wait_for(lambda: found().get("no_quorum"))
        silent = found()["sentinel_away"]
    settled = wait_for(lambda: "no_quorum" not in found())

    assert short.severity == "warning" and settled
    assert f"127.0.0.1:{watched.sentinels[0].port} reaches 1 of 3, 2 have to agree" in short.seen
    assert silent.seen.startswith("2 of 3 sentinels name no master: ") and "does not answer" in silent.seen


def test_a_sentinel_of_another_master_is_told(watched: Watched, settings: Any) -> None:
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


def test_a_command_of_a_finding_names_the_master(watched: Watched) -> None:
    finding = Finding("broker", "stalls", "warning", "it blocks", next="valkey-cli CONFIG SET appendonly yes")

    [found] = run_checks(GROUP, lambda: [finding], 20.0)

    assert found.next.endswith(f"-cli -h 127.0.0.1 -p {watched.master.port} CONFIG SET appendonly yes")


def test_a_replica_that_is_silent_or_gone_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_master_that_is_down_is_told_apart_from_sentinels_that_are(watched: Watched) -> None:
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
def test_a_replica_is_behind_by_its_state_or_its_bytes(replica: dict[str, Any], said: list[str]) -> None:
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
def test_a_sentinel_that_ends_connections_is_told_apart_from_one_that_is_away(
    options: str, text: str, said: str, step: str
) -> None:
    class Refusing(Sentinels):
        def ask(self, *args: object) -> list[Any]:
            raise redis.ConnectionError(text)

    secure, _, query = options.partition("?")
    url = f"redis{secure}+sentinel://a:1/yard/0{f'?{query}' if query else ''}"
    [state] = judged.read_sentinels(Refusing(parse_sentinel_url(url), {}))

    assert said in state.failure
    assert state.step.startswith(step) and bool(state.step) == bool(step)


def test_sentinels_of_different_opinions_are_told() -> None:
    states = [judged.SentinelState(name, master=master, usable=3) for name, master in (("a:1", "x:1"), ("b:1", "y:1"))]

    [split] = judged.judge_sentinels(states)

    assert split.seen == "the sentinels name different masters: a:1 names x:1; b:1 names y:1"
