"""The dashboard's check finds what it is there for, and the dashboard passes it."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings

DASHBOARD = json.loads((settings.BASE_DIR / "ops/grafana/dashboard.json").read_text())


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard_check", settings.BASE_DIR / "ops/grafana/check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def board() -> dict[str, Any]:
    return copy.deepcopy(DASHBOARD)


def test_dashboard_has_nothing_wrong(check: ModuleType, board: dict[str, Any]) -> None:
    assert list(check.problems(board)) == []


def test_no_variable_of_grafana_is_left_in_a_query(check: ModuleType, board: dict[str, Any]) -> None:
    assert not [query for query in check.expressions(board) if "$" in query]


def test_dashboard_shows_queues_tasks_and_workers(check: ModuleType, board: dict[str, Any]) -> None:
    wanted = {
        *("queue_depth", "queue_oldest_age_seconds", "message_wait_seconds_bucket", "messages_total", "retries_total"),
        *("message_duration_seconds_bucket", "worker_slots_busy", "worker_memory_bytes", "worker_restarts_total"),
        "dead_letters",
    }
    shown = {name for query in check.expressions(board) for name in re.findall(r"switchyard_(\w+)", query)}

    assert wanted - shown == set()
