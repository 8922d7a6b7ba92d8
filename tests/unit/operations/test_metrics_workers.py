from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from switchyard.operations.metrics import WorkerMetrics

CHILD = """
from prometheus_client import CollectorRegistry, Counter, Histogram
registry = CollectorRegistry()
done = Counter("switchyard_messages", "Attempts by how they ended.", ("queue", "outcome"), registry=registry)
wait = Histogram("switchyard_message_wait_seconds", "Wait.", ("queue",), buckets=(0.1, 1), registry=registry)
Counter("switchyard_owner_attempts", "By owner.", ("outcome", "owner"), registry=registry).labels("dead", "mia").inc()
done.labels("mail", "succeeded").inc(3)
wait.labels("mail").observe(0.5)
"""


def child_of(pool: Path) -> None:
    """Count in a process of its own, as a pool's child does."""
    pool.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", CHILD], check=True, env={"PROMETHEUS_MULTIPROC_DIR": str(pool)})


def scrape(folder: Path) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerMetrics(folder))
    return generate_latest(registry).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for pool in ("mail", "retries", "retries"):
        child_of(tmp_path / pool)
    return tmp_path


def test_children_of_all_pools_are_added_up(folder: Path) -> None:
    text = scrape(folder)

    assert 'switchyard_messages_total{outcome="succeeded",queue="mail"} 9.0' in text
    assert 'switchyard_message_wait_seconds_bucket{le="0.1",queue="mail"} 0.0' in text
    assert 'switchyard_message_wait_seconds_bucket{le="+Inf",queue="mail"} 3.0' in text
    assert "mia" not in text, "owners are for the facts alone"
    assert "# HELP switchyard_messages_total Attempts by how they ended." in text


def test_files_that_are_just_being_made_are_left_out(folder: Path) -> None:
    (folder / "mail" / "counter_1.db").write_bytes(b"")
    (folder / "mail" / "histogram_2.db").write_bytes(b"\xff" * 64)
    (folder / "mail" / "counter_3.db").symlink_to(folder / "gone")

    assert 'switchyard_messages_total{outcome="succeeded",queue="mail"} 9.0' in scrape(folder)
