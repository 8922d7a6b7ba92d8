"""Real pools, as a deployment runs them, whose server is killed again and again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dramatiq.broker import Broker

from broker.clients import connect
from broker.keys import Keys
from project.wiring import build_yard
from tests.chaos.ledger import Ledger
from tests.chaos.load import YARD, declare_job, load, wait_until_drained
from tests.chaos.server import ServerUnderTest
from tests.chaos.test_server_faults import seconds_until_one_completes
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pools(server: ServerUnderTest, ledger: Ledger, tmp_path: Path) -> Iterator[psutil.Process]:
    """``runpools`` with all pools of the yard up, on a server to harm."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings",
        "SWITCHYARD_BROKER_URL": server.url,
        "SWITCHYARD_STATE_DIR": str(tmp_path),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "CHAOS_LEDGER": str(ledger.path),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "runpools"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "pools: all ready" in log.read_text() or process.poll() is not None, 30, what="pools ready")
        assert process.poll() is None, log.read_text()
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def broker(server: ServerUnderTest, ledger: Ledger) -> Broker:
    """A broker to enqueue with, on the pools' keys."""
    broker = build_yard(YARD, connect(server.url), Keys())
    declare_job(broker, ledger)
    return broker


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("kills", "enqueues", "per_s"), [(1, 300, 300), pytest.param(5, 100_000, 0, marks=pytest.mark.long)]
)
def test_pools_outlive_kills_of_their_server_and_lose_nothing(
    server: ServerUnderTest,
    pools: psutil.Process,
    broker: Broker,
    ledger: Ledger,
    kills: int,
    enqueues: int,
    per_s: float,
) -> None:
    before = processes_of(pools)
    back_s = []

    with load(broker, ledger, per_s=per_s, ms=0) as producers:
        for _ in range(kills):
            producers.wait_for_accepted(enqueues // (kills + 1), 300)
            server.kill()
            producers.wait_for_refused(2)
            server.restart()
            back_s.append(seconds_until_one_completes(ledger))
        wait_for(lambda: producers.accepted_count >= enqueues, 600)
        producers.stop()
        wait_until_drained(broker, 600)

    print(f"a job completed {max(back_s):.2f} s after a restart at the latest")
    found = ledger.account()
    assert (found.lost, found.unexpected) == ((), ())
    assert max(back_s) < 5
    assert processes_of(pools) == before


def processes_of(pools: psutil.Process) -> set[int]:
    """Return the pids of all pools: supervisors and children."""
    return {pools.pid, *(child.pid for child in pools.children(recursive=True))}
