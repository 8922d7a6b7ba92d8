"""Conditions that prevent a start: of yard, actors, tables or server; those that do not; and ``run``."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.test import override_settings

from project.config import BASE_DIR
from switchyard.broker.errors import BrokerUnsafe
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer
from switchyard.long_running import HISTORY_WRITER, SCHEDULER
from switchyard.workers.checks.installation import unsafe_server
from switchyard.workers.preflight import mark_keyspace
from tests.integration.workers.conftest import Bench
from tests.processes import is_alive, titles_below
from tests.waiting import wait_for

WORDS = {"one": ("runpool", "urgent"), "several": ("runpools",), "scheduler": ("runscheduler",)}


def test_an_unknown_pool_is_refused_by_name_with_those_that_exist(bench):
    one = bench.start("runpool", "urgnet", log="one")
    several = bench.start("runpools", "urgent", "slwo", log="several")

    assert (one.wait(60), several.wait(60)) == (78, 78)
    fact = "refused to start: pool 'urgnet' is not declared; the yard has urgent, slow, webhook, retries"
    assert fact in bench.log("one")
    assert "pool 'slwo' is not declared" in bench.log("several")


def test_a_wrong_yard_is_refused_with_each_mistake_and_its_fix_and_by_scheduler_and_web_as_well(bench):
    started = {name: bench.start(*words, yard="wrong", log=name) for name, words in WORDS.items()}
    started["web"] = bench.start_module("uvicorn", "project.asgi:application", "--port", "0", yard="wrong", log="web")

    assert {name: process.wait(60) for name, process in started.items()} == dict.fromkeys(started, 78)
    assert all("(switchyard.E011)" in bench.log(name) for name in started)
    for name in ("one", "several"):
        assert "(switchyard.E010)" in bench.log(name)
        assert "lower processes or slots, or raise database_connections" in bench.log(name)


def test_a_taken_metrics_port_is_refused(bench):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert bench.start("runpool", "urgent", "--metrics-port", str(taken.getsockname()[1])).wait(60) == 78
        assert "cannot serve metrics" in bench.log()


def test_a_pool_starts_without_its_broker_and_works_when_it_comes(bench, tmp_path):
    server = EmbeddedServer(tmp_path / "valkey").start()
    server.stop()
    late = Bench(server.url, tmp_path)
    late.up("runpool", "urgent")
    assert "the server does not answer" in late.log()

    server.start()
    token = late.send("urgent")

    wait_for(lambda: late.ended(token))
    wait_for(lambda: late.report("urgent"))
    late.stop_all()
    server.stop()


def test_a_thread_that_runs_before_the_fork_is_named_and_no_other(bench):
    starts = "import threading\nthreading.Thread(target=threading.Event().wait, name='sender', daemon=True).start()"
    (bench.folder / "sitecustomize.py").write_text(starts)
    bench.environment["PYTHONPATH"] = f"{bench.folder}:{bench.environment.get('PYTHONPATH', '')}"
    for command, pool in (("runpool", "urgent"), ("runpools", "slow")):
        bench.start(command, pool, log=pool)
        bench.wait_for_log(f"pool {pool}: ready", log=pool)
        assert bench.log(pool).count("warning: 1 threads run before the pools fork, sender: ") == 1


def test_two_supervisors_of_one_pool_keep_their_metrics_apart(bench):
    bench.up("runpool", "urgent", log="first")

    bench.start("runpool", "urgent", log="second")

    bench.wait_for_log("pool urgent: ready", log="second")
    wait_for(lambda: len({report.metrics_port for report in bench.reports.read_all()}) == 2)
    assert {path.name for path in (bench.folder / "metrics").iterdir() if path.is_dir()} == {"urgent", "urgent.2"}


HELD_MS = 10_000
HEAP_BYTES = 64 * 2**20


def start(bench: Bench, log: str) -> subprocess.Popen[bytes]:
    process = bench.start("switchyard", "run", yard="small form", log=log)
    bench.wait_for_log("pool small: ready (1 × 4 threads)", log=log)
    return process


def heaps(pid: int) -> int:
    """Return the number of heaps that glibc made for threads: each reserves 64 MiB, and uses the beginning."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    spans = [[*(int(end, 16) for end in line[0].split("-")), line[1]] for line in lines]
    return sum(
        used[2] == "rw-p" and rest[2] == "---p" and rest[1] == used[0] + HEAP_BYTES for used, rest in pairwise(spans)
    )


def test_a_small_yard_keeps_its_promises_and_loses_nothing_when_all_of_it_is_killed(bench):
    run = start(bench, "first")
    wait_for(lambda: set(titles_below(run.pid)) == {"small child 1", "schedules and history"})
    wait_for(lambda: all(bench.client.exists(Keys().lock(name)) for name in (SCHEDULER, HISTORY_WRITER)))

    held = [bench.send("slow", ms=HELD_MS) for _ in range(3)]
    wait_for(lambda: all(bench.started(token) for token in held))
    waiting = [bench.send(queue, ms=10) for queue in ("webhook", "slow")]
    urgent = [bench.send("urgent", ms=10) for _ in range(3)]
    wait_for(lambda: all(bench.ended(token) for token in urgent))
    assert not any(bench.ended(token) for token in held)
    assert not any(bench.started(token) for token in waiting)

    below = titles_below(run.pid)
    assert all(heaps(pid) <= 2 for pid in below.values())
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, below.values())))
    second = start(bench, "second")
    wait_for(lambda: all(bench.ended(token) for token in (*held, *waiting)))

    beside = titles_below(second.pid)["schedules and history"]
    for pid in (second.pid, beside):  # as Ctrl-C in a terminal does
        os.kill(pid, signal.SIGINT)
    assert second.wait(60) == 0
    assert f"schedules and history (pid {beside}) exited" not in bench.log("second")
    assert not bench.client.exists(Keys().lock(SCHEDULER))


def test_run_refuses_a_yard_of_pools_and_names_the_setting(bench):
    assert bench.start("switchyard", "run").wait(60) == 78

    assert "SWITCHYARD_SMALL: is not set" in bench.log()
    assert "3 or more, in every process, the web too" in bench.log()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client that puts things right afterwards."""
    client = connect(server.url)
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("appendonly", "yes")
    client.config_set("save", "")
    client.close()


def test_a_server_that_evicts_is_refused_everywhere_and_snapshots_alone_are_a_warning_in_production(server, admin):
    admin.config_set("maxmemory-policy", "volatile-ttl")
    [evicts] = unsafe_server(server.url, debug=True)
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("appendonly", "no")
    admin.config_set("save", "3600 1")
    [snapshots] = unsafe_server(server.url, debug=False)

    assert evicts.id == "switchyard.E015"
    assert "CONFIG SET maxmemory-policy noeviction" in str(evicts.hint)
    assert snapshots.id == "switchyard.W003" and not snapshots.is_serious()
    assert unsafe_server(server.url, debug=True) == []


def test_a_wrong_password_is_told_as_one(server):
    [message] = unsafe_server(f"redis://:wrong@127.0.0.1:{server.port}/0", debug=True)

    assert message.msg == "the server refuses the login; eviction and persistence were not checked"
    assert message.hint == (
        "Check user and password in SWITCHYARD_BROKER_URL and that replicas and other nodes have the same users."
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1/0", "connection refused, nothing listens there"),
        ("redis://valkey.invalid:6379/0", "the name of its host does not resolve"),
        ("redis+sentinel://127.0.0.1:1/yard/0", "no sentinel names the master"),
    ],
)
def test_a_server_that_is_not_reached_is_told_with_the_reason(url, why):
    [message] = unsafe_server(url, debug=True)

    assert message.msg == f"the server does not answer ({why}); eviction and persistence were not checked"


def test_a_start_marks_a_new_keyspace_and_tells_of_one_in_use(server, admin):
    admin.flushdb()
    with override_settings(SWITCHYARD=replace(settings.SWITCHYARD, broker_url=server.url)):
        assert mark_keyspace() == []
        marker = admin.hget(Keys().generation(), "id")
        assert mark_keyspace() == [] and admin.hget(Keys().generation(), "id") == marker

        admin.flushdb()
        admin.rpush(Keys().queue("default").waiting("live")[1], "a")
        [message] = mark_keyspace()

    assert message.id == "switchyard.W006" and "manage.py switchyard broker accept" in str(message.hint)
    assert marker and not admin.exists(Keys().generation())


def test_work_sent_before_any_pool_is_no_finding_in_development(server, admin):
    admin.flushdb()
    admin.rpush(Keys().queue("default").waiting("live")[1], "a")
    with override_settings(DEBUG=True, SWITCHYARD=replace(settings.SWITCHYARD, broker_url=server.url)):
        assert mark_keyspace() == []
        assert admin.hget(Keys().generation(), "id")

        admin.delete(Keys().generation())
        admin.sadd(Keys().generations_missed(), "another")
        [message] = mark_keyspace()

    assert message.id == "switchyard.W006"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench").mkdir()
    with EmbeddedServer(tmp_path / "valkey") as server:
        bench = Bench(server.url, tmp_path / "bench")
        yield bench
        bench.stop_all()


def test_no_pool_starts_on_a_server_with_an_evicting_policy(own):
    own.client.config_set("maxmemory-policy", "allkeys-lru")  # all of them: broker/health/test_watch.py

    assert own.start("runpool", "urgent").wait(60) == 78
    [line] = [line for line in own.log().splitlines() if "refused to start" in line]
    assert "allkeys-lru" in line and "CONFIG SET maxmemory-policy noeviction" in line
    assert own.client.dbsize() == 0


@pytest.mark.parametrize("within_s", [60.0, pytest.param(15.0, marks=pytest.mark.long)])
def test_evicting_stops_enqueuing_and_an_emptied_keyspace_pauses_until_it_is_accepted(own, within_s):
    pools = own.up("runpools", "urgent", "slow", "--no-history")
    own.ran("urgent")

    own.client.config_set("maxmemory-policy", "allkeys-lru")
    took_s = refused_after_s(own)
    own.client.config_set("maxmemory-policy", "noeviction")
    print(f"enqueuing stopped {took_s:.1f} s after the policy was set")
    assert took_s < within_s
    second = wait_for(lambda: accepted(own), within_s, what="enqueuing goes on")
    wait_for(lambda: own.ended(second))

    running = own.begun("slow", ms=8_000)
    own.client.flushdb()
    flushed_s = time.monotonic()
    own.wait_for_log("pool urgent: paused, it fetches nothing", within_s)
    print(f"noticed {time.monotonic() - flushed_s:.1f} s after FLUSHDB")
    report = wait_for(lambda: (found := own.report("urgent")) and not found.children and found)
    token = own.send("urgent")
    assert report.state == "paused"
    assert own.waiting("urgent") == 1
    assert not own.client.exists(Keys().generation())
    wait_for(lambda: own.ended(running), what="a job that ran may end")

    assert own.start("broker", "accept", log="accept").wait(60) == 0
    wait_for(lambda: own.ended(token), within_s, what="the waiting job runs")
    assert own.log().count("pool urgent: paused, it fetches nothing") == 1
    pools.send_signal(signal.SIGTERM)
    assert pools.wait(60) == 0


def refused_after_s(bench: Bench) -> float:
    started_s = time.monotonic()
    wait_for(lambda: accepted(bench) is None, what="enqueuing is refused")
    return time.monotonic() - started_s


def accepted(bench: Bench) -> str | None:
    try:
        return bench.send("urgent")
    except BrokerUnsafe:
        return None


ROOT = Path(__file__).resolve().parents[3]
SETTINGS = """
from dataclasses import replace
from pathlib import Path

from tests.integration.workers.bench.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "loyalty"]
SWITCHYARD = replace(SWITCHYARD, base_dir=Path({folder!r}))
"""


class Project:
    """A project whose only app is the newcomer's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("host/__init__.py", "")
        self.write("host/settings.py", SETTINGS.format(folder=str(folder)))
        self.write("loyalty/__init__.py", "")

    def write(self, name: str, code: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)

    def check(self) -> tuple[int, str]:
        """Run ``manage.py check`` in the project's folder; return its exit code and what it printed."""
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "host.settings", "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-m", "django", "check"], cwd=self.folder, env=environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def actor(arguments: str, signature: str = "name: str") -> str:
    """Return the code of an actor whose decorator is in line 3."""
    return f"import dramatiq\n\n@dramatiq.actor({arguments})\ndef hello({signature}) -> None: ...\n"


ONE, REFUSED = actor('queue_name="urgent"'), "switchyard: refused to start: "
OPTION = r"actor hello: .*unknown actor option 'max_retry' \(did you mean 'max_retries'\?\); known are .* "
LAZY = "from django.utils.functional import SimpleLazyObject\n\nclient = SimpleLazyObject(lambda: 1 / 0)\n"
TWO_NAMES = """
import sys, pathlib
sys.path.append(str(pathlib.Path(__file__).parent))
import jobs
import loyalty.jobs
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        (actor('queue_name="urgent", max_retry=3'), 78, rf"{REFUSED}{OPTION}\(loyalty/actors\.py:3\)\n"),
        (
            f"{ONE}\nhello.send(1)\n",
            78,
            rf"{REFUSED}loyalty/actors\.py:6: this sends a message whenever the file is imported.*\n",
        ),
        (
            ONE * 2,
            78,
            rf"{REFUSED}actor hello: is declared at loyalty/actors\.py:3 and again at loyalty/actors\.py:7; "
            r"rename one function, or write actor_name=\.\.\.\n",
        ),
        (
            TWO_NAMES,
            78,
            rf"{REFUSED}actor hello: is declared twice at loyalty/jobs\.py:3; the file is imported under two names.*\n",
        ),
        (LAZY + ONE, 0, r"(?s)(?!.*Traceback).*"),
    ],
    ids=["an option", "a send", "a second actor", "a second import", "none: a lazy object is not evaluated"],
)
def test_a_mistake_in_a_file_of_actors_is_refused_with_actor_file_and_line(project, code, exit_code, words):
    project.write("loyalty/jobs.py", ONE)
    project.write("loyalty/actors.py", code)

    found, said = project.check()

    assert (found, bool(re.fullmatch(words, said))) == (exit_code, True), said


@pytest.fixture
def environment(tmp_path: Path, valkey_url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}", "SWITCHYARD_BROKER_URL": valkey_url}


def test_a_process_that_starts_without_its_tables_says_what_makes_them(environment):
    start = "refuse_if_wrong()"
    code = "; print('next', flush=True); ".join(
        ("call_command('migrate', 'switchyard_jobs')", start, "call_command('migrate', skip_checks=False)", start)
    )
    imports = "from django.core.management import call_command; from switchyard.workers.preflight import *"
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--verbosity=0", "-c", f"{imports}; {code}"],
        cwd=BASE_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    _, lacking, migrated, after = done.stdout.split("next\n")

    said = r"switchyard: warning: database default: lacks \d+ migrations, switchyard_\w+\.0001_\w+ first, and what "
    assert re.search(said + r"needs their tables fails; run manage\.py migrate \(switchyard\.W037\)\n", lacking)
    assert "Applying" in migrated and "W037" not in migrated
    assert "W037" not in after
