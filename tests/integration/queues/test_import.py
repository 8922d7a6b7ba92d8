"""``manage.py switchyard queues import``: messages of stock Dramatiq go on as this yard's."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from django.core.management import CommandError, call_command
from dramatiq.brokers.redis import RedisBroker
from dramatiq.message import Message

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import CLOCK
from switchyard.commands.queues import REFUSALS_SHOWN
from switchyard.conf import declared_yard
from switchyard.queues import stock as of_redis
from tests.factories.commands import output_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stock(facilities, valkey_url):
    """Stock Dramatiq's broker, and its address."""
    return RedisBroker(url=valkey_url, middleware=[]), valkey_url


@pytest.fixture
def of_stock(monkeypatch):
    """Constants of the module that imports; it does not wait long."""
    monkeypatch.setattr(of_redis, "IDLE_MS", 300)
    return of_redis


@pytest.fixture
def ran():
    """Numbers of the jobs that ran."""
    ran: list[int] = []
    dramatiq.actor(ran.append, actor_name="moves", queue_name="default")
    return ran


def message(number: int, **options: Any) -> Message[Any]:
    return Message("default", "moves", (number,), {}, options)


def test_what_stock_dramatiq_left_runs_here_under_its_ids(stock, ran, facilities, run_worker, of_stock):
    broker, url = stock
    broker.declare_queue("default")
    ids = [broker.enqueue(message(number, retries=2, traceback="gone")).message_id for number in range(120)]
    late = broker.enqueue(message(120), delay=600_000).message_id

    printed = output_of("queues", "import", url, "default")
    live = facilities.transport.stats("default").live
    again = output_of("queues", "import", url, "default", "--json")
    with run_worker("default"):
        wait_for(lambda: len(ran) == 120)

    assert (printed, live.waiting, live.scheduled) == ("default: 121 messages imported\n", 120, 1)
    assert (json.loads(again)[0]["moved"], sorted(ran)) == (0, list(range(120)))
    assert {facilities.records.read(id_).state for id_ in ids} == {"succeeded"}
    assert facilities.records.read(late).state == "scheduled"
    newest = AuditEntry.objects.filter(act="queue.import").latest("pk")
    assert (newest.target, newest.count, newest.outcome) == ("default", 0, "done")


def test_a_delayed_message_keeps_its_due_time_on_a_host_with_a_wrong_clock(
    stock, ran, facilities, of_stock, monkeypatch
):
    broker, url = stock
    broker.declare_queue("default")
    late = broker.enqueue(message(1), delay=600_000)
    monkeypatch.setattr(facilities.clock, "_due_s", 0.0)

    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=300), tick=True):
        assert output_of("queues", "import", url, "default") == "default: 1 message imported\n"
    CLOCK.forget()

    family: Any = dramatiq.get_broker().families["default"]  # type: ignore[attr-defined]
    _, due_ms = family.calls.command("ZRANGE", family.keys.due("live"), 0, -1, "WITHSCORES")
    assert abs(float(due_ms) - late.options["eta"]) < 5_000


def test_queues_that_the_old_server_lacks_are_left_out(stock, ran, facilities, of_stock):
    broker, url = stock
    broker.declare_queue("default")
    broker.enqueue(message(1))

    lines = output_of("queues", "import", url).splitlines()

    others = [queue.name for queue in declared_yard().queues if queue.name != "default"]
    assert others and set(lines) == {
        "default: 1 message imported",
        *(f"{name}: 0 messages imported" for name in others),
    }
    assert facilities.transport.stats("default").live.waiting == 1


def test_what_cannot_be_imported_stays_and_is_said(valkey_url, ran, facilities):
    broker = RedisBroker(url=valkey_url, middleware=[])
    broker.declare_queue("default")
    held = broker.enqueue(message(1)).message_id
    assert next(broker.consume("default", prefetch=1, timeout=100)).message_id == held
    refused = broker.enqueue(message(2, no_such_option=1)).message_id

    lines = output_of("queues", "import", valkey_url, "default").splitlines()

    assert lines[0] == "default: 0 messages imported"
    assert f"refused, it stays where it is: {refused}: " in lines[1] and "no_such_option" in lines[1]
    assert lines[2].startswith("default: workers of stock Dramatiq hold 1, or")
    assert broker.client.hlen("dramatiq:default.msgs") == 2


def test_what_is_refused_ends_no_import_and_is_said_again(stock, ran, facilities, of_stock, monkeypatch):
    monkeypatch.setattr(of_stock, "PREFETCH", 10)
    broker, url = stock
    broker.declare_queue("default")
    for number in range(25):
        broker.enqueue(message(number, no_such_option=1))
    broker.enqueue(message(25))

    first = output_of("queues", "import", url, "default").splitlines()
    second = output_of("queues", "import", url, "default").splitlines()

    assert (first[0], second[0]) == ("default: 1 message imported", "default: 0 messages imported")
    assert sorted(first[1:]) == sorted(second[1:])
    assert "refused, it stays where it is: " in second[1]
    assert second[-1] == f"default: {25 - REFUSALS_SHOWN} more were refused"


@pytest.mark.parametrize(
    ("url", "says"),
    [("http://127.0.0.1", "begins with 'http'"), ("redis://127.0.0.1:1/0", "after 0 messages of default")],
)
def test_an_address_that_cannot_be_used_is_refused(url, says, facilities):
    with pytest.raises(CommandError, match=says):
        output_of("queues", "import", url, "default")


def test_a_queue_that_the_yard_lacks_is_refused(valkey_url, facilities):
    with pytest.raises(CommandError, match="nowhere"):
        output_of("queues", "import", valkey_url, "nowhere")


def told(*arguments: str) -> str:
    told = io.StringIO()
    call_command("switchyard", "queues", "import", *arguments, stdout=io.StringIO(), stderr=told)
    return told.getvalue()


def test_a_key_that_a_scan_returns_twice_counts_once(facilities, valkey_url, monkeypatch):
    stock = of_redis.StockRedis(valkey_url, namespace="twice")
    source = stock.broker
    source.declare_queue("elsewhere")
    source.enqueue(Message("elsewhere", "moves", (1,), {}, {}))
    keys = list(source.client.scan_iter())
    monkeypatch.setattr(source.client, "scan_iter", lambda **options: iter(keys + keys))

    [line] = of_redis.leftover_lines(stock)

    assert line.startswith("elsewhere: 1 message left there")


def test_queues_that_the_yard_lacks_and_an_empty_namespace_are_told(facilities, valkey_url):
    broker = RedisBroker(url=valkey_url, namespace="shop", middleware=[])
    for name, delay in (("elsewhere", None), ("elsewhere", 600_000), ("default", None)):
        broker.declare_queue(name)
        broker.enqueue(Message(name, "moves", (1,), {}, {}), delay=delay)
    broker.client.zadd("shop:__heartbeats__", {"a worker": 1})

    lacking = told(valkey_url, "--namespace", "shop")
    empty = told(valkey_url, "--namespace", "none")

    assert lacking.startswith("elsewhere: 2 messages left there, for this yard declares no such queue")
    assert "default" not in lacking
    assert "no queue there begins with 'none:'; workers used" in empty and "shop" in empty and "--namespace" in empty
    broker.client.delete(*broker.client.scan_iter("shop:*"))
