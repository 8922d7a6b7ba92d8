"""The host of :mod:`tests.integration.tasks.host`: its backend in this process, its pools, its peer."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import dramatiq
import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.tasks.backend import declare_tasks
from switchyard.wiring import build_yard
from tests.chaos.pools import RunningPool
from tests.integration.tasks.host.topology import YARD

ROOT = Path(__file__).resolve().parents[3]
TASKS_MODULE = "tests.integration.tasks.host.tasks"
OURS = "switchyard.tasks.SwitchyardBackend"

OnBackend = Callable[..., RedisBroker]


@pytest.fixture
def on_backend(valkey_url, settings) -> Iterator[OnBackend]:
    """Run this process's tasks with our backend on the host's yard: ``on_backend(ENQUEUE_ON_COMMIT=False)``."""
    before, built = dramatiq.get_broker(), []

    def use(**entry: Any) -> RedisBroker:
        settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=YARD)
        options = {"modules": [TASKS_MODULE], **entry.pop("OPTIONS", {})}
        ours = {"BACKEND": OURS, "OPTIONS": options, **entry}
        settings.TASKS = {"default": ours, "other": ours}
        built.append(build_yard(YARD, connect(valkey_url), Keys()))
        dramatiq.set_broker(built[-1])
        declare_tasks()
        return built[-1]

    yield use
    dramatiq.set_broker(before)
    for broker in built:
        broker.close()
        broker.client.close()


@pytest.fixture
def host_tasks(on_backend, valkey) -> ModuleType:
    """The host's module of tasks, on our backend and an emptied server."""
    on_backend()
    from tests.integration.tasks.host import tasks

    return tasks


class Host:
    """The host's processes: pools on our backend, and programs that ask on either."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.notes_file = folder / "notes"
        self.environment = {
            **os.environ, "SWITCHYARD_BROKER_URL": url, "SWITCHYARD_STATE_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"), "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
            "TASK_NOTES": str(self.notes_file),
        }  # fmt: skip
        self._started: list[subprocess.Popen[bytes]] = []

    def start_pools(self) -> RunningPool:
        """Start every pool of the host and wait until they are ready."""
        log, command = self.folder / "log", [sys.executable, str(ROOT / "manage.py"), "runpools"]
        own = {**self.environment, "DJANGO_SETTINGS_MODULE": "tests.integration.tasks.host.settings"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=own, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started.append(process)
        pools = RunningPool(process, log)
        pools.wait_for_log("pools: all ready")
        return pools

    def run(self, settings: str, *arguments: str) -> str:
        """Run a Python program of the repository under settings of the host and return what it prints."""
        own = {**self.environment, "DJANGO_SETTINGS_MODULE": f"tests.integration.tasks.host.{settings}"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr[-4_000:]
        return done.stdout

    def ask(self, settings: str, queue: str) -> dict[str, Any]:
        """Return the answers of :mod:`tests.integration.tasks.questions`."""
        printed = self.run(settings, "-m", "tests.integration.tasks.questions", queue)
        answers: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return answers

    def notes(self) -> list[list[str]]:
        """Return what the tasks noted, by words."""
        text = self.notes_file.read_text() if self.notes_file.exists() else ""
        return [line.split() for line in text.splitlines()]

    def stop(self) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def host(valkey_url, tmp_path_factory) -> Iterator[Host]:
    """The host with its pools up, on an emptied Valkey, for all tests of a module."""
    client = connect(valkey_url)
    client.flushdb()
    client.close()
    host = Host(tmp_path_factory.mktemp("host"), valkey_url)
    host.start_pools()
    yield host
    host.stop()
