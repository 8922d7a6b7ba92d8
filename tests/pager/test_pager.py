"""From a pool that really stops to PagerDuty, Slack and mail, by the rendered files as they are; and back."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from django.conf import settings

from switchyard.deployment.rendered_files import render, write
from switchyard.embedded.server import free_port
from tests.environment import SERVER
from tests.factories.endpoints import Answering, answers_of
from tests.factories.smtp import Recorder, smtp_server
from tests.integration.serving.web_process import WebProcess
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("valkey"), pytest.mark.timeout(500)]
# Path of each service below a receiver's address, and its answer to a request that it takes.
ANSWERS = {
    "/slack": (200, "text/plain", b"ok"),
    "/pagerduty": (202, "application/json", b'{"status":"success","message":"Event processed","dedup_key":"k"}'),
    "/tickets": (201, "application/json", b"{}"),
}
ROOT = settings.BASE_DIR
PUBLIC_URL = "https://yard.example.com"
TOKEN = "a metrics token of the tests"
OTHERS = [pool.name for pool in settings.SWITCHYARD.topology.pools if pool.name != "urgent"]
ALERT = "pool urgent: no child takes work"
# Queries of the dashboard that find nothing in a yard without trouble: no exception, no restart, nothing dead.
MAY_BE_EMPTY = ("retries_total", "worker_restarts_total", "worker_memory_limit_bytes", "outcome=~")


@dataclass
class Receiver:
    """Messages that Slack, PagerDuty and a tracker were sent, each with its time by the monotonic clock."""

    url: str = ""
    got: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)

    def of(self, service: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at_s, body) for path, at_s, body in list(self.got) if path == f"/{service}"]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(Answering):
        def do_POST(self) -> None:
            found.got.append((self.path, time.monotonic(), json.loads(self.body())))
            status, kind, content = ANSWERS.get(self.path, (404, "text/plain", b"no such service"))
            self.answer(status, content, kind)

    with answers_of(Handler) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


def program(name: str) -> str:
    """Return the path of a program. Raises ``AssertionError`` with a remedy where there is none."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; run: apt-get install prometheus prometheus-alertmanager"
    return path


@contextlib.contextmanager
def running(log: Path, ready_url: str, *command: str) -> Iterator[None]:
    """Run a server in the foreground until the block ends, and wait for its answer first."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or _answers(ready_url), 60, what=f"{command[0]} to answer")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Monitoring:
    """Prometheus and Alertmanager that run."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of Prometheus's API. Raises ``urllib.error.HTTPError`` for a refused query."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        return [(found["metric"], float(found["value"][1])) for found in self.ask("query", query=query)["result"]]


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


@contextlib.contextmanager
def monitoring(folder: Path, prometheus_port: int, alertmanager_port: int) -> Iterator[Monitoring]:
    """Run both on the files ``prometheus.yml``, ``rules.yml`` and ``alertmanager.yml`` of a folder, as they are."""
    alertmanager, prometheus = address(alertmanager_port), address(prometheus_port)
    with (
        running(
            folder / "alertmanager.log", f"http://{alertmanager}/-/ready", program("prometheus-alertmanager"),
            "--config.file=alertmanager.yml", f"--storage.path={folder}/alertmanager-data",
            f"--web.listen-address={alertmanager}", "--cluster.listen-address=",
        ),
        running(
            folder / "prometheus.log", f"http://{prometheus}/-/ready", program("prometheus"),
            "--config.file=prometheus.yml", f"--storage.tsdb.path={folder}/prometheus-data",
            f"--web.listen-address={prometheus}",
        ),
    ):  # fmt: skip
        yield Monitoring(f"http://{prometheus}")


@dataclass
class Watched:
    """A yard of real processes that the room's own files watch."""

    web: WebProcess
    start: Callable[..., subprocess.Popen[bytes]]
    monitoring: Monitoring
    receiver: Receiver
    mail: Recorder
    urgent: subprocess.Popen[bytes]


def render_into(folder: Path, web_port: int, ports: list[int], services: Receiver, mail: Recorder) -> None:
    """Write the files with the addresses of this test, and the secrets that they name."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "slack_url").write_text(f"{services.url}/slack")
    (secrets / "pagerduty_key").write_text("key-of-the-tests")
    (secrets / "metrics_token").write_text(TOKEN)
    values = {
        "web": address(web_port), "metrics_token_file": str(secrets / "metrics_token"),
        "alertmanager": address(ports[1]), "secrets": str(secrets), "pagerduty_url": f"{services.url}/pagerduty",
        "ticket_url": f"{services.url}/tickets", "mail_server": address(mail.port), "mail_to": "oncall@example.com",
        "mail_tls": "false",
    }  # fmt: skip
    write(folder, render("compose", settings.SWITCHYARD.topology, values=values))
    shutil.copy(ROOT / "ops/prometheus/rules.yml", folder / "ops/prometheus/rules.yml")


@pytest.fixture
def watched(tmp_path) -> Iterator[Watched]:
    extra = {"SWITCHYARD_METRICS_TOKEN": TOKEN, "SWITCHYARD_PUBLIC_URL": PUBLIC_URL}
    state = tmp_path / "state"
    state.mkdir()
    web = WebProcess(state, SERVER.url, extra)
    with contextlib.ExitStack() as opened:
        web.start()
        opened.callback(web.stop)

        def start(*command: str, ready: str = "") -> subprocess.Popen[bytes]:
            log = tmp_path / f"{command[1] if len(command) > 1 else command[0]}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "manage.py", *command], cwd=ROOT, env=web.environment, stdout=output, stderr=output
                )
            opened.callback(stop, process)
            if ready:
                wait_for(lambda: ready in log.read_text() or process.poll() is not None, 120, what=ready)
                assert process.poll() is None, log.read_text()
            return process

        start("runpools", *OTHERS, ready="pools: all ready")
        urgent = start("runpool", "urgent", ready="pool urgent: ready")
        start("runscheduler")
        start("runhistory")
        services = opened.enter_context(receiver())
        mail = opened.enter_context(smtp_server())
        ports = [free_port() for _ in range(2)]
        render_into(tmp_path, web.port, ports, services, mail)
        prometheus = opened.enter_context(monitoring(tmp_path / "ops/prometheus", *ports))
        yield Watched(web, start, prometheus, services, mail, urgent)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_up(watched: Watched, pool: str) -> bool:
    return [value for _, value in watched.monitoring.values(f'switchyard_worker_up{{pool="{pool}"}}')] == [1.0]


def slack(body: dict[str, Any], status: str) -> bool:
    [attachment] = body["attachments"]
    return bool(attachment["title"] == f"[{status}] {ALERT}")


def pagerduty(body: dict[str, Any], action: str) -> bool:
    return bool(body["event_action"] == action and body["payload"]["summary"] == ALERT)


def mailed(watched: Watched, status: str) -> list[Any]:
    return [mail for mail in watched.mail.mails if str(mail["Subject"]) == f"[{status}] {ALERT}"]


def arrived(watched: Watched, status: str, action: str) -> Callable[[], bool]:
    """Return a condition: Slack, PagerDuty and the mailbox have all been told."""
    return lambda: (
        any(slack(body, status) for _, body in watched.receiver.of("slack"))
        and any(pagerduty(body, action) for _, body in watched.receiver.of("pagerduty"))
        and bool(mailed(watched, status))
    )


def test_pool_that_stops_calls_someone_and_one_that_starts_again_resolves_it(watched, record_property):
    wait_for(lambda: is_up(watched, "urgent"), what="Prometheus to see the pool")
    assert watched.receiver.of("pagerduty") == []

    stopped_s = time.monotonic()
    stop(watched.urgent)
    wait_for(arrived(watched, "FIRING", "trigger"), 90, what="three receivers to be told")
    fired_s = time.monotonic() - stopped_s

    [page] = [body for _, body in watched.receiver.of("pagerduty") if pagerduty(body, "trigger")]
    steps = f"{PUBLIC_URL}/admin/operations/steps/#no-pool"
    assert (page["routing_key"], page["client_url"]) == ("key-of-the-tests", steps)
    assert page["payload"]["severity"] == "critical"
    assert "manage.py switchyard runpool urgent" in page["payload"]["custom_details"]["next_step"]
    [attachment] = next(body for _, body in watched.receiver.of("slack") if slack(body, "FIRING"))["attachments"]
    assert attachment["title_link"] == steps
    [mail] = mailed(watched, "FIRING")
    assert steps in mail.get_body().get_content() and mail["To"] == "oncall@example.com"

    started_s = time.monotonic()
    watched.start("runpool", "urgent", ready="pool urgent: ready")
    wait_for(arrived(watched, "RESOLVED", "resolve"), 90, what="three receivers to be told of the end")
    record_property("fired after, s", round(fired_s, 1))
    record_property("resolved after, s", round(time.monotonic() - started_s, 1))
    print(f"told {fired_s:.1f} s after the stop, of the end {time.monotonic() - started_s:.1f} s after the start")
    assert watched.receiver.of("tickets") == []


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard_check", ROOT / "ops/grafana/check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metric_of_adapter(pool: str) -> str:
    """Return the adapter's query as it fills it in for an autoscaler."""
    [rule] = yaml.safe_load((ROOT / "ops/kubernetes/hpa/adapter.yaml").read_text())["rules"]["external"]
    query = str(rule["metricsQuery"]).replace("<<.Series>>", rule["seriesQuery"])
    return query.replace("<<.LabelMatchers>>", f'pool="{pool}"')


def test_rules_dashboard_and_autoscalers_find_their_figures_in_a_yard_that_works(watched, check):
    mail = {"to": "ada@example.com", "template": "welcome"}
    for _ in range(20):
        status, _, body = watched.web.request(
            "POST", "/api/v1/emails", body=json.dumps(mail).encode(),
            headers=watched.web.bearer | {"Content-Type": "application/json"},
        )  # fmt: skip
        assert status == 202, body
    for pool in settings.SWITCHYARD.topology.pools:
        found = wait_for(lambda name=pool.name: watched.monitoring.values(metric_of_adapter(name)), what=pool.name)
        assert [value >= 1 for _, value in found] == [True]
        query = f'max(switchyard_pool_slots_needed{{pool="{pool.name}"}})'
        assert [value for _, value in watched.monitoring.values(query)] == [found[0][1]]
    ended = 'sum(switchyard_messages_total{queue="default"}) > 0'
    wait_for(lambda: watched.monitoring.values(ended), what="attempts in Prometheus")

    queries = list(check.expressions(json.loads((ROOT / "ops/grafana/dashboard.json").read_text())))
    empty = [query for query in queries if not watched.monitoring.values(query)]
    groups = wait_for(lambda: evaluated(watched.monitoring), what="every rule evaluated")

    assert len(queries) > 20
    assert [query for query in empty if not any(part in query for part in MAY_BE_EMPTY)] == []
    assert [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"] == []


def evaluated(prometheus: Monitoring) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = prometheus.ask("rules")["groups"]
    return groups if all(rule["health"] != "unknown" for group in groups for rule in group["rules"]) else []
