"""The demo as a person uses it: started, refused, checked, stopped in the midst, started again, killed; its traces."""

import email
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from apps.webhooks.models import Endpoint
from demo.state import StateFolder
from demo.work import WORK
from demo.yard import follow_receiver
from project.config import BASE_DIR
from tests.otlp import Received, receiving, roots_of
from tests.processes import is_alive
from tests.waiting import wait_for

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
RESETS = 30
HEALTHY = 30
FLAKY = 4
RECOVERY_S = 95.0  # a job that a worker could not hand back in time runs again after 90 s at the latest
PARTS = {"demo", "valkey", "sidecars", "pools", "scheduler", "web"}
FIELDS = {"url", "username", "password", "api_token", "broker_url", "database_url", "mail_dir_or_url", "pids"}


class RunningDemo:
    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        self.output = ""
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--state", str(state), *arguments], cwd=BASE_DIR,
            stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        self._reader = threading.Thread(target=self._read, args=(reader,))
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def credentials(self) -> dict[str, Any]:
        return json.loads((self.state / "credentials.json").read_text())

    def wait_until_ready(self) -> str:
        """Return the address of the site."""
        ended = self._process.poll
        wait_for(lambda: "ready: " in self.output or ended() is not None, START_TIMEOUT_S, what="a demo that is ready")
        lines = [line.strip() for line in self.output.splitlines() if line.startswith("ready: ")]
        assert len(lines) == 1, self.output
        return lines[0].removeprefix("ready: ")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request with the demo's token and return its JSON."""
        headers = {"Authorization": f"Bearer {self.credentials['api_token']}"}
        site = self.credentials["url"].rstrip("/")
        with urllib3.PoolManager() as pool:
            answer = pool.request(method, site + path, json=body, headers=headers, timeout=30.0)
            assert answer.status < 300, answer.data
            return answer.json()

    def wait_for_line(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until it has said something."""
        wait_for(lambda: text in self.output, timeout_s=timeout_s, what=f"{text!r} in the output")

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def end(self) -> int:
        code = self._process.wait(STOP_TIMEOUT_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End it at once, for a test that failed."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self, descriptor: int) -> None:
        while True:
            piece = os.read(descriptor, 65536)
            if not piece:
                os.close(descriptor)
                return
            self.output += piece.decode(errors="replace")


@pytest.fixture
def start(tmp_path):
    """Start demos on one state folder; whatever the test leaves is killed."""
    started: list[RunningDemo] = []

    def begin(*arguments: str) -> RunningDemo:
        started.append(RunningDemo(tmp_path / "state", *arguments))
        started[-1].wait_until_ready()
        return started[-1]

    yield begin
    for demo in started:
        demo.kill()


def send_work(demo: RunningDemo) -> list[str]:
    """Send quick and slow work of several apps and return the job ids."""
    port = json.loads((demo.state / "identity.json").read_text())["receiver_port"]
    for kind in ("healthy", "flaky"):
        body = {"url": f"http://127.0.0.1:{port}/{kind}", "events": [f"test.{kind}"]}
        demo.ask("POST", "/api/v1/webhooks/endpoints", body)
    export = {"dataset": "invoices", "format": "csv"}
    jobs = [demo.ask("POST", "/api/v1/exports", export)["job_id"] for _ in range(4)]
    for number in range(RESETS):
        body = {"to": f"reader-{number}@example.com", "template": "password_reset"}
        jobs.append(demo.ask("POST", "/api/v1/emails", body)["job_id"])
    for kind, count in (("flaky", FLAKY), ("healthy", HEALTHY)):
        for number in range(count):
            event = {"event": f"test.{kind}", "payload": {"n": number}}
            jobs += demo.ask("POST", "/api/v1/webhooks/events", event)["job_ids"]
    return jobs


@pytest.mark.long
def test_nothing_is_lost_or_doubled_when_the_demo_is_stopped_in_the_midst_and_started_with_reload(start):
    demo = start("--no-sample")
    first = demo.credentials
    family = [process.pid for process in psutil.Process(demo.pid).children(recursive=True)]
    jobs = send_work(demo)

    demo.signal(signal.SIGTERM)

    assert demo.end() == 0
    assert not [pid for pid in family if is_alive(pid)]
    demo = start("--no-sample", "--reload")
    assert psutil.Process(demo.credentials["pids"]["pools"]).cmdline()[0] == "switchyard: reloader"
    assert {**demo.credentials, "pids": 0} == {**first, "pids": 0, "url": demo.credentials["url"]}
    unfinished = list(jobs)
    wait_for(lambda: not still_unfinished(demo, unfinished), timeout_s=RECOVERY_S, what="every job succeeded")
    mails = Counter(mail["Message-ID"].strip() for mail in mails_of(demo.state))
    assert len(mails) == RESETS
    assert set(mails.values()) == {1}
    taken = Counter(entry["id"] for entry in deliveries_of(demo.state) if entry["status"] == 200)
    assert len(taken) == HEALTHY + FLAKY
    assert set(taken.values()) == {1}
    family = [process.pid for process in psutil.Process(demo.pid).children(recursive=True)]
    demo.signal(signal.SIGINT)
    assert demo.end() == 0
    assert not [pid for pid in family if is_alive(pid)]
    assert "killed what was left" not in demo.output


@pytest.mark.long
def test_sample_work_is_sent_a_dead_part_restarts_a_second_demo_is_refused_kill_9_leaves_nothing(start):
    demo = start()
    demo.wait_for_line("Newsletter that is cancelled: cancelled")
    demo.wait_for_line("A payment provider's signed event was taken in")
    demo.wait_for_line("Thumbnail of an uploaded picture: done")
    demo.wait_for_line("held back by the rate limit", timeout_s=60.0)
    assert "could not be sent" not in demo.output
    assert "no marker" not in (demo.state / "logs" / "pools.log").read_text()
    assert set(demo.credentials) == FIELDS
    assert set(demo.credentials["pids"]) == PARTS
    assert stat.S_IMODE((demo.state / "credentials.json").stat().st_mode) == 0o600
    assert [path for path in demo.state.iterdir() if path.stat().st_mode & 0o077] == []
    web = demo.credentials["pids"]["web"]

    psutil.Process(web).kill()
    demo.wait_for_line("web ended with SIGKILL; starting it again now")
    second = run_demo("--state", str(demo.state))
    demo.wait_for_line("web is back")

    assert second.returncode == 1
    assert f"in use by process {demo.pid}, {demo.credentials['url']}" in second.stderr
    assert demo.credentials["pids"]["web"] != web
    assert demo.ask("GET", "/api/v1/queues")["queues"]
    family = [demo.pid, *(process.pid for process in psutil.Process(demo.pid).children(recursive=True))]
    demo.signal(signal.SIGKILL)
    demo.end()
    wait_for(lambda: not [pid for pid in family if is_alive(pid)], timeout_s=40.0, what="no process left")


def still_unfinished(demo: RunningDemo, jobs: list[str]) -> list[str]:
    """Ask for each job in the list, take those that succeeded out, and return the list."""
    for job_id in list(jobs):
        state = demo.ask("GET", f"/api/v1/jobs/{job_id}")["state"]
        assert state not in ("dead", "expired", "cancelled")
        if state == "succeeded":
            jobs.remove(job_id)
    return jobs


def mails_of(state: Path) -> list[Any]:
    return [email.message_from_bytes(path.read_bytes()) for path in (state / "mail" / "new").glob("*.eml")]


def deliveries_of(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "deliveries.jsonl").read_text().splitlines()]


def test_every_outcome_is_as_expected_and_nothing_is_left():
    done = run_demo("--check")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok │") == len(WORK)
    state = next(line for line in done.stdout.splitlines() if "starting a yard in " in line).split()[-1]
    assert Path(state).parent == Path(tempfile.gettempdir()) and not Path(state).exists()
    assert not processes_of(Path(state))


@pytest.mark.django_db
def test_endpoints_follow_the_receiver_and_others_stay(tmp_path):
    ours = Endpoint.objects.create(owner_key="user:1", url="http://127.0.0.1:1111/flaky", events=["a"], secret="s")
    other = Endpoint.objects.create(owner_key="user:1", url="https://example.com/hook", events=["a"], secret="t")
    state = StateFolder(tmp_path)

    follow_receiver(1111, "http://127.0.0.1:2222", state)

    ours.refresh_from_db()
    other.refresh_from_db()
    assert (ours.url, other.url) == ("http://127.0.0.1:2222/flaky", "https://example.com/hook")
    assert state.webhook_secrets.read_text() == "s\n"


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo", *arguments]
    return subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, timeout=170)


def test_part_that_does_not_start_is_named_with_its_log_and_nothing_stays(tmp_path):
    (tmp_path / "db.sqlite3").mkdir()

    done = run_demo("--state", str(tmp_path), "--no-sample")

    assert done.returncode == 1
    assert "demo: set-up: ended with exit code 1; its log is" in done.stderr
    assert str(tmp_path / "logs" / "set-up.log") in done.stderr
    assert "unable to open database file" in done.stderr
    assert "Traceback" not in done.stderr.splitlines()[0]
    assert not processes_of(tmp_path)


def test_port_in_use_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = run_demo("--state", str(tmp_path), "--port", port)

    assert done.returncode == 1
    assert f"demo: port {port}: address already in use; choose another with --port" in done.stderr
    assert not (tmp_path / "valkey").exists()
    assert not (tmp_path / "demo.owner.json").exists()


def test_state_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    done = run_demo("--state", str(tmp_path / "file" / "state"))

    assert done.returncode == 1
    assert "not a directory; choose one that you may write to with --state DIR" in done.stderr


def test_broken_broker_data_is_an_error_that_names_the_brokers_log(tmp_path):
    manifest = tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("nonsense\n")

    done = run_demo("--state", str(tmp_path))

    assert done.returncode == 1
    assert "demo: valkey: " in done.stderr
    assert str(tmp_path / "valkey" / "valkey.log") in done.stderr


def processes_of(state: Path) -> list[str]:
    """Return the command lines of processes that have a file of the state folder open."""
    found = []
    for process in psutil.process_iter(["cmdline", "open_files"]):
        if any(Path(file.path).is_relative_to(state) for file in process.info["open_files"] or ()):
            found.append(" ".join(process.info["cmdline"] or ()))
    return found


SECRET = "not-for-a-trace"
PRODUCER, CONSUMER, CLIENT, ERROR = 4, 5, 3, 2
MAKE_A_BATCH = """
from apps.webhooks.actors import purge_delivery_attempts as purge
from switchyard.batches.services import batch
with batch("purge", on_success=purge.message()) as jobs:
    for _ in range(3):
        jobs.add(purge.message())
print(jobs.id)
"""


@pytest.fixture(scope="module")
def traces():
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def demo(traces, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        running = RunningDemo(tmp_path_factory.mktemp("demo") / "state", "--no-sample")
        try:
            running.wait_until_ready()
            yield running
        finally:
            running.kill()


def in_shell(demo: RunningDemo, code: str) -> str:
    """Run code as a command of the demo's project, and return what it prints."""
    environment = f"set -a; . {shlex.quote(str(demo.state / 'environment'))}"
    run = f"{environment}; exec {shlex.quote(sys.executable)} manage.py shell -v 0 -c {shlex.quote(code)}"
    return subprocess.run(["bash", "-c", run], cwd=BASE_DIR, capture_output=True, check=True, text=True).stdout.strip()


def named(tree: list[Received], name: str) -> list[Received]:
    return [span for span in tree if span.name == name]


def below(tree: list[Received], parent: Received) -> list[Received]:
    return [span for span in tree if span.parent == parent.id]


def test_a_webhook_with_three_attempts_is_one_tree(demo, traces):
    port = json.loads((demo.state / "identity.json").read_text())["receiver_port"]
    endpoint = {"url": f"http://127.0.0.1:{port}/flaky?key={SECRET}", "events": ["test.flaky"]}
    demo.ask("POST", "/api/v1/webhooks/endpoints", endpoint)
    event = {"event": "test.flaky", "payload": {"note": SECRET}}
    [job_id] = demo.ask("POST", f"/api/v1/webhooks/events?key={SECRET}", event)["job_ids"]

    wait_for(lambda: len(named(traces.tree_of(job_id), "run deliver_webhook")) == 3, what="three attempts")
    wait_for(lambda: len(roots_of(traces.tree_of(job_id))) == 1, what="one root")
    tree = traces.tree_of(job_id)

    [request] = [span for span in tree if not span.parent]
    assert request.resource["service.name"] == "switchyard" and request.resource["service.version"]
    [sent] = named(tree, "enqueue deliver_webhook")
    assert (sent.parent, sent.kind) == (request.id, PRODUCER)
    waits, runs = named(tree, "wait deliver_webhook"), named(tree, "run deliver_webhook")
    assert {span.parent for span in (*waits, *runs)} == {sent.id}
    assert [span.attributes["switchyard.attempt"] for span in runs] == [1, 2, 3]
    assert [span.attributes["switchyard.outcome"] for span in runs] == ["retried", "retried", "succeeded"]
    assert [span.status == ERROR for span in runs] == [True, True, False]
    assert [span.links for span in runs] == [(), (runs[0].id,), (runs[1].id,)]
    assert all(wait.end <= run.start for wait, run in zip(waits, runs, strict=True))
    for run in runs:
        called = below(tree, run)
        assert any("http.request.method" in span.attributes for span in called)
        assert any("db.statement" in span.attributes for span in called)
    assert SECRET.encode() not in traces.raw


def test_a_batch_with_its_callback_is_one_tree(demo, traces):
    batch_id = in_shell(demo, MAKE_A_BATCH)

    def tree() -> list[Received]:
        made = {span.trace for span in traces.spans if span.attributes.get("switchyard.batch") == batch_id}
        return [span for span in traces.spans if span.trace in made]

    wait_for(lambda: len(named(tree(), "run purge_delivery_attempts")) == 4, what="three members and a callback")

    wait_for(lambda: roots_of(tree()) == ["make batch"], what="one root")
    [made] = named(tree(), "make batch")
    assert len([span for span in below(tree(), made) if span.name == "enqueue purge_delivery_attempts"]) == 4


def test_a_worker_that_drains_exports_what_is_left_and_its_poll_is_no_trace(demo, traces):
    demo.ask("GET", "/readyz")
    job_id = demo.ask("POST", "/api/v1/emails", {"to": "reader@example.com", "template": "password_reset"})["job_id"]
    wait_for(lambda: demo.ask("GET", f"/api/v1/jobs/{job_id}")["state"] == "succeeded")

    demo.signal(signal.SIGTERM)

    assert demo.end() == 0
    assert [span.kind for span in traces.tree_of(job_id) if span.name.startswith("run ")] == [CONSUMER]
    assert all(span.parent or span.kind != CLIENT for span in traces.spans)
    assert not [span for span in traces.spans if "readyz" in str(span.attributes)]
