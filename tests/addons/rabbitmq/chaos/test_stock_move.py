"""docs/how-to/move-from-stock-dramatiq.md, followed on Redis and RabbitMQ at once: nothing is lost or runs twice."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.addons.rabbitmq.chaos import stock_worker
from tests.chaos.followed_pages import FollowedPage, followed
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, YARD, declare_job, enqueue
from tests.chaos.pools import ROOT
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

PAGE = "docs/how-to/move-from-stock-dramatiq.md"
ON_REDIS, ON_RABBITMQ = "redis://old.example.com:6379/0", "amqp://user:password@old.example.com:5672/"
WORKER = f"{sys.executable} -m dramatiq {stock_worker.__name__} --path {ROOT} --processes 1 --threads 1"
WAITING, DELAYED = 25, 5  # on each server
DELAY_MS = 10_000


@pytest.mark.long
def test_what_stock_dramatiq_left_goes_on_here(
    valkey_url: str, rabbitmq_server: Any, process_environment: dict[str, str], ledger: Ledger, tmp_path: Path
) -> None:
    urls = (valkey_url, rabbitmq_server.url)
    environment = {
        "DATABASE_URL": process_environment["DATABASE_URL"], "DJANGO_SETTINGS_MODULE": "tests.chaos.yard.settings",
        "CHAOS_LEDGER": str(ledger.path), "SWITCHYARD_BROKER_URL": valkey_url,
    }  # fmt: skip
    send_to_stock(urls, ledger)
    with followed(PAGE, dict(zip((ON_REDIS, ON_RABBITMQ), urls, strict=True)), tmp_path, environment) as page:
        work_a_while_as_stock(page, urls, ledger)
        page.run(page.command("manage.py migrate"))

        imports, shown = page.block(), page.block()
        left = set(ledger.account().lost)
        first, again = page.run(imports), page.run(imports)
        pools = page.start(page.command("manage.py switchyard runpools"))
        wait_for(lambda: not ledger.account().lost, what="every job has completed")
        jobs = json.loads(page.run(page.command("manage.py switchyard jobs list") + " --json"))
        pools.process.terminate()
        assert pools.process.wait(60) == 0, pools.log()

    assert {shape(line) for line in [*first.splitlines(), *again.splitlines()]} == set(map(shape, shown.splitlines()))
    assert len(first.splitlines()) == len(urls) * len(YARD.queues), "a line for each queue of the yard"
    assert (moved(first), moved(again)) == (len(left), 0)
    assert left <= {job["id"] for job in jobs["jobs"]}, "the imported jobs by their old ids"
    found = ledger.each_once()
    assert len(found.completed) == len(found.accepted) == len(urls) * (WAITING + DELAYED) > len(left) > 0


def send_to_stock(urls: tuple[str, str], ledger: Ledger) -> None:
    """Send with the old release: what waits, and what is delayed."""
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


def shape(line: str) -> str:
    """Return a printed line without its queue and its number."""
    return re.sub(r"^\w+: \d+ ", "QUEUE: N ", line)


def moved(printed: str) -> int:
    """Return the sum of the numbers that an import printed."""
    return sum(int(count) for count in re.findall(r": (\d+) ", printed))
