"""Pages about moves, followed under load on Redis and RabbitMQ: nothing is lost and nothing runs twice."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.wiring import build_yard
from tests.addons.rabbitmq.chaos import stock_worker
from tests.addons.rabbitmq.server import build_rabbit_yard
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, YARD, declare_job, enqueue, load
from tests.chaos.pools import ROOT, RunningPool
from tests.unit.documentation.pages import read
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.timeout(600)]
BLOCK = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
MANAGE = f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "manage.py"}" "$@"\n'
LONGEST_S = 120
# A login that times out leaves pika's socket to the garbage collection.
SOCKET_LEFT = "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
PAGE = "docs/how-to/move-between-brokers.md"
ON_REDIS, ON_RABBITMQ = ("redis://old.example.com:6379/0", "amqps://yard:PASSWORD@rabbit.example.com:5671/yard")
STOCK_PAGE = "docs/how-to/move-from-stock-dramatiq.md"
STOCK_REDIS, STOCK_RABBITMQ = "redis://old.example.com:6379/0", "amqp://user:password@old.example.com:5672/"
WORKER = f"{sys.executable} -m dramatiq {stock_worker.__name__} --path {ROOT} --processes 1 --threads 1"
WAITING, DELAYED = 25, 5  # on each server
DELAY_MS = 10_000


class FollowedPage:
    """Reader of a page, who takes each block once, from the top, and runs it in a shell that knows ``manage.py``.

    Args:
        text: The page.
        replaced: Text of the page -> the test's own, such as addresses of servers.
        folder: For the shells and what they print.
        environment: Of every shell. It names no server: the page does.

    Raises:
        AssertionError: a text to replace is not on the page.
    """

    def __init__(self, text: str, replaced: Mapping[str, str], folder: Path, environment: Mapping[str, str]) -> None:
        for theirs, ours in replaced.items():
            assert theirs in text, f"the page no longer has {theirs}"
            text = text.replace(theirs, ours)
        self.text, self._folder = text, folder
        self.left = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in BLOCK.findall(text)]
        programs = folder / "programs"
        programs.mkdir()
        (programs / "manage.py").write_text(MANAGE)
        (programs / "manage.py").chmod(0o700)
        own = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
        self._environment = {**own, **environment, "PATH": f"{programs}:{os.environ['PATH']}"}
        self._started: list[RunningPool] = []

    def block(self) -> str:
        """Take the next block.

        Raises:
            AssertionError: there is none.
        """
        assert self.left, "every block of the page is taken"
        return self.left.pop(0)

    def command(self, words: str) -> str:
        """Return a command that the page's prose names.

        Raises:
            AssertionError: it does not.
        """
        assert f"`{words}`" in self.text, f"the page no longer has {words}"
        return words

    def run(self, script: str, **environment: str) -> str:
        """Run lines of shell and return what they printed.

        Raises:
            AssertionError: one of them exited with another code than 0.
        """
        done = subprocess.run(
            ["bash", "-ec", script], **self._shell(environment), capture_output=True, text=True, timeout=LONGEST_S
        )
        assert done.returncode == 0, f"{script}\nexited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, script: str, **environment: str) -> RunningPool:
        """Run lines of shell, the last of which stays."""
        *before, last = script.strip().splitlines()
        log = Path(tempfile.mkstemp(prefix="log-", dir=self._folder)[1])
        command = ["bash", "-ec", "\n".join([*before, f"exec {last}"])]
        self._started.append(RunningPool.started(command, log, **self._shell(environment)))
        return self._started[-1]

    def kill(self) -> None:
        for running in self._started:
            running.kill()

    def _shell(self, environment: dict[str, str]) -> dict[str, object]:
        folder = tempfile.mkdtemp(prefix="shell-", dir=self._folder)
        own = {"SWITCHYARD_STATE_DIR": folder, "PROMETHEUS_MULTIPROC_DIR": f"{folder}/metrics"}
        return {"cwd": folder, "env": {**self._environment, **own, **environment}}


@contextlib.contextmanager
def followed(
    path: str, replaced: Mapping[str, str], folder: Path, environment: Mapping[str, str]
) -> Iterator[FollowedPage]:
    """Follow a page to its end; the arguments are those of :class:`FollowedPage`.

    Raises:
        AssertionError: a block of the page was not taken.
    """
    page = FollowedPage(read(path), replaced, folder, environment)
    try:
        yield page
    finally:
        page.kill()
    assert not page.left, f"{path} has blocks that this test does not follow: {page.left}"


@pytest.fixture
def senders(valkey_url, rabbitmq_server, ledger) -> Iterator[tuple[Any, Any]]:
    """Brokers of this process that send, as the web does: to Redis, and to RabbitMQ with the same Redis beside it."""
    on_redis = build_yard(YARD, connect(valkey_url), Keys())
    on_rabbitmq = build_rabbit_yard(YARD, connect(valkey_url), Keys(), url=rabbitmq_server.url)
    for broker in (on_redis, on_rabbitmq):
        declare_job(broker, ledger)
    yield on_redis, on_rabbitmq
    for broker in (on_redis, on_rabbitmq):
        broker.close()
        broker.client.close()


@pytest.mark.filterwarnings(SOCKET_LEFT)
@pytest.mark.long
@pytest.mark.parametrize(("per_s", "jobs"), [(30, 60), (100, 300)])
def test_a_yard_moves_from_redis_to_rabbitmq_and_back(
    senders, valkey_url, rabbitmq_server, ledger, tmp_path, per_s, jobs
):
    servers = {ON_REDIS: valkey_url, ON_RABBITMQ: rabbitmq_server.url}
    environment = {"DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings", "CHAOS_LEDGER": str(ledger.path)}
    with followed(PAGE, servers, tmp_path, environment) as page:
        to_redis, to_rabbitmq = senders
        old = ready(page, page.start("manage.py switchyard runpools", SWITCHYARD_BROKER_URL=valkey_url))
        with load(to_redis, ledger, per_s=per_s) as before:
            before.wait_for_accepted(jobs)

            new = ready(page, page.start(page.block()))
            with load(to_rabbitmq, ledger, per_s=per_s, first=100_000) as meanwhile:
                meanwhile.wait_for_accepted(jobs)
                before.stop()
                wait_until_empty(page, page.block())
                drain(page, old)
                meanwhile.wait_for_accepted(jobs)

                assert "get the Redis server alone, without `SWITCHYARD_REDIS_URL`" in page.text
                last = ready(page, page.start("manage.py switchyard runpools", SWITCHYARD_BROKER_URL=valkey_url))
                with load(to_redis, ledger, per_s=per_s, first=200_000) as after:
                    after.wait_for_accepted(jobs)
                    meanwhile.stop()
                    assert "Count in step 4 in\na shell with both addresses of the old broker" in page.text
                    both = {"SWITCHYARD_BROKER_URL": rabbitmq_server.url, "SWITCHYARD_REDIS_URL": valkey_url}
                    count = "manage.py switchyard queues --json"
                    wait_until_empty(page, count, **both)
                    drain(page, new)
                    assert left(page, count, **both) == 0, "the page has the reader start the old pools again"
                    after.stop()
        wait_for(lambda: not ledger.account().lost, what="every job has completed")
        drain(page, last)

    found = ledger.each_once()
    assert len(found.completed) == len(found.accepted) >= 4 * jobs


def ready(page: FollowedPage, pools: RunningPool) -> RunningPool:
    [line] = re.findall(r"Wait until it says `(.+?)`", page.text)
    pools.wait_for_log(re.escape(line))
    return pools


def wait_until_empty(page: FollowedPage, count: str, **environment: str) -> None:
    wait_for(lambda: left(page, count, **environment) == 0, what="the old queues are empty")


def left(page: FollowedPage, count: str, **environment: str) -> int:
    """Return the sum of the figures of every queue that the page names."""
    [named] = re.findall(r"under the old address: (.+) are 0", page.text)
    figures = re.findall(r"`(\w+)`", named)
    assert len(figures) == 4
    return sum(queue[figure] or 0 for queue in json.loads(page.run(count, **environment)) for figure in figures)


def drain(page: FollowedPage, pools: RunningPool) -> None:
    assert "`SIGTERM` to each `runpools`: they drain and exit with 0" in page.text
    pools.process.terminate()
    assert pools.process.wait(60) == 0, pools.log()


@pytest.mark.django_db(transaction=True)
@pytest.mark.long
def test_what_stock_dramatiq_left_goes_on_here(valkey_url, rabbitmq_server, process_environment, ledger, tmp_path):
    urls = (valkey_url, rabbitmq_server.url)
    environment = {
        "DATABASE_URL": process_environment["DATABASE_URL"], "DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings",
        "CHAOS_LEDGER": str(ledger.path), "SWITCHYARD_BROKER_URL": valkey_url,
    }  # fmt: skip
    send_to_stock(urls, ledger)
    with followed(
        STOCK_PAGE, dict(zip((STOCK_REDIS, STOCK_RABBITMQ), urls, strict=True)), tmp_path, environment
    ) as page:
        work_a_while_as_stock(page, urls, ledger)
        page.run(page.command("manage.py migrate"))

        imports = page.block()
        left = set(ledger.account().lost)
        first, again = page.run(imports), page.run(imports)
        pools = page.start(page.command("manage.py switchyard runpools"))
        wait_for(lambda: not ledger.account().lost, what="every job has completed")
        assert "Imported jobs keep their ids." in page.text
        jobs = json.loads(page.run("manage.py switchyard jobs list --json"))
        pools.process.terminate()
        assert pools.process.wait(60) == 0, pools.log()

    assert len(first.splitlines()) == len(urls) * len(YARD.queues), "a line for each queue of the yard"
    assert (moved(first), moved(again)) == (len(left), 0)
    assert left <= {job["id"] for job in jobs["jobs"]}, "the imported jobs by their old ids"
    found = ledger.each_once()
    assert len(found.completed) == len(found.accepted) == len(urls) * (WAITING + DELAYED) > len(left) > 0


def send_to_stock(urls: tuple[str, str], ledger: Ledger) -> None:
    for number, url in enumerate(urls):
        broker = stock_worker.stock_broker(url)
        declare_job(broker, ledger)
        broker.declare_queue(QUEUE, **({} if url.startswith("redis") else {"ensure": True}))
        broker.flush(QUEUE)
        for job in range(WAITING):
            enqueue(broker, ledger, f"waiting-{number}-{job}.", ms=200)
        for job in range(DELAYED):
            enqueue(broker, ledger, f"delayed-{number}-{job}.", delay_ms=DELAY_MS)
        broker.close()


def work_a_while_as_stock(page: FollowedPage, urls: tuple[str, str], ledger: Ledger) -> None:
    """Run stock Dramatiq's own workers until each has ended a job, and stop them as the page says."""
    assert "**Stop all old workers** with `SIGTERM`: they end what runs." in page.text
    workers = [page.start(WORKER, STOCK_URL=url) for url in urls]
    for number in range(len(urls)):
        wait_for(lambda number=number: any(f"-{number}-" in job for job in ledger.jobs("completed")))
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        assert worker.process.wait(60) == 0, worker.log()


def moved(printed: str) -> int:
    """Return the sum of the numbers that an import printed."""
    return sum(int(count) for count in re.findall(r": (\d+) ", printed))
