"""Metrics of queues, pools and workers, and who may scrape them."""

import shutil
import subprocess
import sys
from pathlib import Path

import dramatiq
import pytest
from django.conf import settings
from django.test import Client, override_settings
from prometheus_client import CollectorRegistry, generate_latest

import switchyard
from switchyard.operations.metrics import WorkerMetrics
from tests.conftest import Configure
from tests.factories.letters import keep, letter

pytestmark = pytest.mark.django_db


@pytest.fixture
def metrics_dir(tmp_path: Path, configure: Configure) -> Path:
    """A folder of pools with two children that counted."""
    for pool in ("default", "slow"):
        child_of(tmp_path / pool)
    configure(metrics_dir=tmp_path, metrics_token="the-token")
    return tmp_path


def scrape() -> str:
    answer = Client().get("/metrics")
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return answer.content.decode()


def test_queue_side_says_how_every_lane_stands(facilities, metrics_dir):
    @dramatiq.actor(actor_name="counted", queue_name="slow")
    def counted() -> None:
        pass

    for _ in range(3):
        counted.send()
    counted.send_with_options(delay=60_000)
    keep(letter(queue="slow"))

    lines = scrape().splitlines()

    assert 'switchyard_queue_depth{queue="slow",state="waiting"} 3.0' in lines
    assert 'switchyard_queue_depth{queue="slow",state="scheduled"} 1.0' in lines
    assert 'switchyard_queue_depth{queue="slow-retry",state="waiting"} 0.0' in lines
    assert 'switchyard_dead_letters{queue="slow"} 1.0' in lines
    assert 'switchyard_queue_paused{queue="slow"} 0.0' in lines
    assert 'switchyard_quarantined{queue="slow"} 0.0' in lines
    ages = [line for line in lines if line.startswith('switchyard_queue_oldest_age_seconds{queue="slow"}')]
    assert 0 <= float(ages[0].split()[1]) < 30


def test_worker_side_says_which_pools_are_up(facilities, slow_pool, metrics_dir):
    lines = scrape().splitlines()

    assert 'switchyard_worker_up{pool="slow"} 1.0' in lines
    assert 'switchyard_worker_up{pool="webhook-retry"} 0.0' in lines
    assert 'switchyard_worker_slots{pool="slow"} 2.0' in lines
    assert 'switchyard_worker_slots_busy{pool="slow"} 1.0' in lines
    assert 'switchyard_worker_memory_bytes{pool="slow"} 3.02e+08' in lines
    assert 'switchyard_worker_restarts_total{pool="slow",reason="memory"} 1.0' in lines


def test_broker_that_is_away_leaves_the_task_side_and_the_promises(broker_away, metrics_dir):
    text = scrape()
    lines = text.splitlines()

    assert f'switchyard_info{{version="{switchyard.__version__}"}} 1.0' in lines
    assert 'switchyard_queue_objective_seconds{queue="urgent"} 0.08' in lines
    assert 'switchyard_queue_done_objective_seconds{queue="urgent"} 5.0' in lines
    assert not any(line.startswith('switchyard_queue_done_objective_seconds{queue="slow"}') for line in lines)
    assert 'switchyard_pool_serves{pool="slow",queue="slow"} 1.0' in lines
    assert 'switchyard_pool_serves{pool="retries",queue="slow-retry"} 1.0' in lines
    assert "switchyard_broker_up 0.0" in text
    assert "switchyard_queue_depth" not in text and "switchyard_worker_up" not in text
    assert 'switchyard_messages_total{outcome="succeeded",queue="mail"} 6.0' in text


def test_promtool_has_nothing_to_say(facilities, slow_pool, metrics_dir):
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed; apt-get install prometheus"

    checked = subprocess.run([promtool, "check", "metrics"], input=scrape(), capture_output=True, text=True, timeout=60)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


# A web with keys of its own answers other machines.
@override_settings(MIDDLEWARE=[each for each in settings.MIDDLEWARE if each != "project.middleware.loopback_only"])
def test_strangers_are_refused_and_the_token_lets_in(facilities, metrics_dir):
    stranger = Client(REMOTE_ADDR="192.0.2.7")

    refused = stranger.get("/metrics")
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    assert "switchyard_" not in refused.content.decode()
    assert Client().get("/metrics", HTTP_X_FORWARDED_FOR="127.0.0.1").status_code == 401
    assert stranger.get("/metrics", HTTP_AUTHORIZATION="Bearer the-token").status_code == 200
    assert Client().post("/metrics").status_code == 405


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


def metrics_of(folder: Path) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerMetrics(folder))
    return generate_latest(registry).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for pool in ("mail", "retries", "retries"):
        child_of(tmp_path / pool)
    return tmp_path


def test_children_of_all_pools_are_added_up_without_files_that_are_just_being_made(folder):
    text = metrics_of(folder)

    assert 'switchyard_messages_total{outcome="succeeded",queue="mail"} 9.0' in text
    assert 'switchyard_message_wait_seconds_bucket{le="0.1",queue="mail"} 0.0' in text
    assert 'switchyard_message_wait_seconds_bucket{le="+Inf",queue="mail"} 3.0' in text
    assert "mia" not in text, "owners are for the facts alone"
    assert "# HELP switchyard_messages_total Attempts by how they ended." in text
    (folder / "mail" / "counter_1.db").write_bytes(b"")
    (folder / "mail" / "histogram_2.db").write_bytes(b"\xff" * 64)
    (folder / "mail" / "counter_3.db").symlink_to(folder / "gone")

    assert 'switchyard_messages_total{outcome="succeeded",queue="mail"} 9.0' in metrics_of(folder)
