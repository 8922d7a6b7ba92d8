"""The project's own pools on hurried retries, a service that is taken away from them, and what became of their jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dramatiq.message import Message

from project.topology import YARD
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.job_records import Job
from switchyard.embedded.server import free_port
from switchyard.wiring import build_yard
from switchyard.workers.shared.fork import die_with_parent
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MINUTE_S = 60.0


class Failure(NamedTuple):
    """An attempt that failed: when, and when the next one is due, in seconds since the epoch."""

    job: str
    at_s: float
    due_s: float


class SideServer:
    """A webhook receiver or a mail sink in a process of its own: stopped and started again on one port."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", module, "--port", str(self.port), *arguments]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent(signal.SIGTERM)
        )
        assert self._process.stdout is not None
        assert "ready" in self._process.stdout.readline()

    def stop(self) -> None:
        """End it: connections are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


class OutageYard:
    """Pools of the project, as a deployment runs them, with delays of retries divided by ``speed``."""

    def __init__(self, folder: Path, broker_url: str, database_url: str, *, speed: int, **environment: str) -> None:
        self.speed = speed
        self.broker = build_yard(YARD, connect(broker_url), Keys())
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.outage_yard.settings",
            "OUTAGE_SPEED": str(speed),
            "SWITCHYARD_BROKER_URL": broker_url,
            "SWITCHYARD_STATE_DIR": str(folder),
            "SWITCHYARD_LOG_FORMAT": "json",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "DATABASE_URL": database_url,
            **environment,
        }
        self._log = folder / "pools.log"
        self._process: subprocess.Popen[bytes] | None = None

    def rows(self, kind: str, count: int, *more: str) -> list[dict[str, Any]]:
        """Write the rows that jobs need, and return the arguments of each job."""
        command = [sys.executable, "-m", "tests.chaos.outage_yard.rows", kind, str(count), *more]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def manage(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, check=True)

    def start(self, *pools: str) -> None:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "runpools", *pools],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: "pools: all ready" in self._log.read_text(), 120, what=f"ready in {self._log}")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.broker.close()
        self.broker.client.close()

    def send(self, queue: str, actor: str, arguments: list[dict[str, Any]]) -> list[str]:
        """Enqueue a job for each set of arguments and return their ids."""
        sent = []
        for kwargs in arguments:
            message: Message[Any] = Message(queue_name=queue, actor_name=actor, args=(), kwargs=kwargs, options={})
            sent.append(self.broker.enqueue(message).message_id)
        return sent

    def wait_until_all_failed(self, jobs: list[str]) -> None:
        wanted = set(jobs)
        wait_for(lambda: wanted <= {failure.job for failure in self.failures()}, 120, what="first attempts")

    def pass_minutes(self, minutes: float) -> None:
        """Let so many of the yard's hurried minutes pass."""
        threading.Event().wait(minutes * MINUTE_S / self.speed)

    def probe(self, queue: str, jobs: list[str], timeout_s: float) -> list[float]:
        """Send live work every 50 ms until all jobs have ended; return how long each probe waited, in ms."""
        probes: list[str] = []
        deadline = time.monotonic() + timeout_s
        open_jobs = set(jobs)
        while open_jobs:
            probes += self.send(queue, f"probe_{queue}", [{}])
            threading.Event().wait(0.05)
            states = facilities(self.broker).records.states(list(open_jobs))
            open_jobs = {job for job, state in zip(list(open_jobs), states, strict=True) if state != "succeeded"}
            assert time.monotonic() < deadline, (len(open_jobs), Counter(states), self.tail())
        found = [self.record(probe) for probe in probes[:-1]]
        return sorted(float((one.started_at or 0) - (one.enqueued_at or 0)) for one in found if one.started_at)

    def record(self, job: str) -> Job:
        found = facilities(self.broker).records.read(job)
        assert found is not None, job
        return found

    def failures(self) -> list[Failure]:
        """Return the attempts that failed, oldest first, as the pools logged them."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return [
            Failure(
                line["job_id"],
                at := datetime.fromisoformat(line["timestamp"]).timestamp(),
                at + line["delay_ms"] / 1_000,
            )
            for line in lines
            if line.get("event") == "retried"
        ]

    def dead(self) -> int:
        """Return how many jobs were given up."""
        return sum(facilities(self.broker).transport.stats(queue.name).dead for queue in YARD.queues)

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]
