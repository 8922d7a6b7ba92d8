"""The containers' health check against a real server on loopback, and the dashboard's check."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from django.conf import settings

from tests.factories.endpoints import Answering, answers_of

PROBE = settings.BASE_DIR / "ops/probe.py"
DASHBOARD = json.loads((settings.BASE_DIR / "ops/grafana/dashboard.json").read_text())


class Handler(Answering):
    """Answers 200 to the right host and token, and 503 to everything else."""

    def do_GET(self) -> None:
        right = self.headers["Host"] == "yard.example.com" and self.headers["Authorization"] == "Bearer word"
        self.answer(200 if right and self.path == "/healthz" else 503)


@pytest.fixture
def port() -> Iterator[int]:
    with answers_of(Handler) as port:
        yield port


def probe(port: int, path: str, *, token: str = "word") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "DJANGO_ALLOWED_HOSTS": ".yard.example.com other.example.com",
        "SWITCHYARD_METRICS_TOKEN": token,
    }
    command = [sys.executable, str(PROBE), str(port), path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_answer_200_is_healthy(port: int) -> None:
    assert probe(port, "/healthz").returncode == 0


def test_any_other_answer_and_none_are_unhealthy_and_told_apart(port: int) -> None:
    other, none = probe(port, "/metrics"), probe(1, "/healthz")

    assert (other.returncode, none.returncode) == (1, 1)
    assert "answered 503" in other.stderr and "did not answer" in none.stderr


def test_token_may_come_from_a_file(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("word\n")
    monkeypatch.setenv("SWITCHYARD_METRICS_TOKEN_FILE", str(tmp_path / "token"))

    assert probe(port, "/healthz", token="").returncode == 0


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard_check", settings.BASE_DIR / "ops/grafana/check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dashboard_has_nothing_wrong_and_no_variable_of_grafana_is_left_in_a_query(check: ModuleType) -> None:
    assert list(check.problems(copy.deepcopy(DASHBOARD))) == []
    assert not [query for query in check.expressions(DASHBOARD) if "$" in query]


def test_dashboard_shows_queues_tasks_and_workers(check: ModuleType) -> None:
    wanted = {
        *("queue_depth", "queue_oldest_age_seconds", "message_wait_seconds_bucket", "messages_total", "retries_total"),
        *("message_duration_seconds_bucket", "worker_slots_busy", "worker_memory_bytes", "worker_restarts_total"),
        "dead_letters",
    }
    shown = {name for query in check.expressions(DASHBOARD) for name in re.findall(r"switchyard_(\w+)", query)}

    assert wanted - shown == set()
