"""Fixtures that every test may use: the real Valkey, this project's broker, workers in this process."""

import contextlib
import gc
import importlib
import os
import sys
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from django.test import override_settings
from dramatiq import Worker
from dramatiq.asyncio import get_event_loop_thread, set_event_loop_thread
from dramatiq.broker import Broker
from pytest_django.plugin import blocking_manager_key

from switchyard.broker.interface import Facilities
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard
from switchyard.wiring import build_yard
from tests.baseline import Baseline
from tests.environment import PGBOUNCER, POSTGRES, SERVER
from tests.needed_programs import is_left_out
from tests.on_both_databases import HISTORY, PATHS
from tests.spread_keys import watch_calls

BuildBroker = Callable[..., RedisBroker]
RunWorker = Callable[..., AbstractContextManager[Worker]]
Configure = Callable[..., None]
TESTS = Path(__file__).parent
# Folders and files about work that must not be lost, doubled or misplaced: red is red, see the marker `exact`.
EXACT = frozenset(
    {
        *("broker", "bulk", "chaos", "conformance", "model", "stock_dramatiq"),
        *("test_catching_up.py", "test_delivering.py", "test_groups.py", "test_import.py", "test_killed.py"),
        *("test_ledger.py", "test_redelivered.py", "test_retries.py", "test_rolling.py", "test_stopping.py"),
        *("test_untracked.py", "test_writer.py"),
    }
)


def pytest_collection(session: pytest.Session) -> None:
    """Load the web's application before the modules that import it: on PostgreSQL its checks ask the database."""
    if POSTGRES:
        with session.config.stash[blocking_manager_key].unblock():
            importlib.import_module("project.asgi")


@pytest.hookimpl(tryfirst=True)  # before pytest applies -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark exact tests and those for both databases, and leave out those about another database or program."""
    paths = [TESTS / path for path in (*PATHS, *(HISTORY if PGBOUNCER else ()))]
    for item in items:
        if any(item.path == path or path in item.path.parents for path in paths):
            item.add_marker(pytest.mark.database)
        if not EXACT.isdisjoint(item.path.relative_to(TESTS).parts):
            item.add_marker(pytest.mark.exact)
    left_out = {item for item in items if (POSTGRES and item.get_closest_marker("sqlite")) or is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep modules and tests out of every later collection of garbage: one of all of them takes half a second."""
    # Not whether it is loaded: with -v its plugin loads it for a line of the report.
    uses = any(getattr(getattr(item, "obj", None), "is_hypothesis_test", False) for item in session.items)
    assert not uses or "tests.same_examples" in sys.modules, "import it in a conftest.py"
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take Hypothesis' plugin out of a run that did not load Hypothesis: its summary would, for nothing."""
    plugins = session.config.pluginmanager
    if "hypothesis" not in sys.modules and (plugin := plugins.get_plugin("hypothesispytest")):
        plugins.unregister(plugin)


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Keep the database of the tests on a server that the run starts and removes: a bouncer holds connections to it."""
    return POSTGRES is not None


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> Iterator[None]:
    """A new database, whose rows are put back quickly after a test that commits."""
    with django_db_blocker.unblock():
        baseline = Baseline()
    with pytest.MonkeyPatch.context() as patch:
        baseline.use(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_passwords() -> Iterator[None]:
    """Hash passwords of test users quickly: they protect nothing."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(autouse=True, scope="session")
def unread_static_files() -> Iterator[None]:
    """Find a static file when it is asked for: each test's client reads all of them otherwise, in 0.1 s."""
    with override_settings(SERVESTATIC_AUTOREFRESH=True):
        yield


@pytest.fixture(autouse=True, scope="session")
def one_slot_for_each_call() -> Iterator[None]:
    """Refuse every call of this process whose keys span hash slots: a cluster would refuse it."""
    with pytest.MonkeyPatch.context() as patch:
        watch_calls(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_clock() -> None:
    """Leave this process its own clock, which tests set: the project's broker compares it with the server's no more."""
    found = getattr(dramatiq.get_broker(), "switchyard", None)
    if found is not None and found.clock is not None:
        found.clock._due_s = float("inf")


@pytest.fixture(autouse=True)
def no_examination(monkeypatch) -> None:
    """Leave out the checks that the overview repeats in a thread, which does not see this test's transaction."""
    monkeypatch.setattr("switchyard.operations.findings.examine.KeptFindings.findings", lambda self, wait_s=0.3: [])


@pytest.fixture(autouse=True)
def no_actors_of_a_test() -> Iterator[None]:
    """Take the actors that a test declared away from the broker at its end, but for those of modules that it loaded."""
    broker = dramatiq.get_broker()
    before = set(broker.actors)
    yield
    for name in set(broker.actors) - before:
        function = broker.actors[name].fn
        module = sys.modules.get(function.__module__ or "")
        if not isinstance(getattr(module, function.__name__, None), dramatiq.Actor):
            del broker.actors[name]


@pytest.fixture(autouse=True)
def no_kept_verdict() -> None:
    """Have the pages of a test read the yard themselves: a process keeps verdict, counters and faults for a while."""
    if strip := sys.modules.get("switchyard.frame.views"):
        strip.STRIP.forget()
    if queries := sys.modules.get("switchyard.operations.queries"):
        queries.forget()
    if own_keys := sys.modules.get("switchyard.broker.redis.own_keys"):
        own_keys._noted.clear()


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """Address of the real Valkey of this test run."""
    return SERVER.url


@pytest.fixture
def valkey(valkey_url, switchyard_real_broker) -> Iterator[redis.Redis]:
    client = connect(valkey_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def facilities(valkey) -> Facilities:
    """The facilities of this project's own broker, with nothing in them."""
    return facilities_of(dramatiq.get_broker())


@pytest.fixture
def yard_broker(valkey) -> Iterator[BuildBroker]:
    built: list[RedisBroker] = []

    def build(yard: Yard | None = None, **options: Any) -> RedisBroker:
        keys = Keys(prefix=f"test-{uuid.uuid4().hex[:8]}")
        built.append(build_yard(yard or declared_yard(), valkey, keys, **options))
        return built[-1]

    yield build
    for broker in built:
        broker.close()


@pytest.fixture
def configure(settings) -> Configure:
    """Change settings, those of the library by their names: ``configure(broker_url=…, DEBUG=False)``."""

    def change(**options: Any) -> None:
        own = {name: value for name, value in options.items() if name.islower()}
        settings.SWITCHYARD = replace(settings.SWITCHYARD, **own)
        for name in options.keys() - own.keys():
            setattr(settings, name, options[name])

    return change


@pytest.fixture
def media(tmp_path, settings) -> Path:
    """A folder of the test's own for the files of jobs and products."""
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return tmp_path / "media"


# Weak references: the id of a broker that is gone may be that of a new one.
_booted: weakref.WeakSet[Broker] = weakref.WeakSet()


def _require_declared(queues: tuple[str, ...], broker: Broker) -> None:
    if not hasattr(broker, "switchyard"):  # a broker without a yard
        return
    lanes = facilities_of(broker).yard.lanes
    for name in queues:
        if name not in lanes and name not in broker.queues:
            pytest.fail(f"queue {name!r} is not declared; the yard has {', '.join(lanes)}")


@pytest.fixture
def run_worker() -> RunWorker:
    """Run a Dramatiq worker in this process: ``with run_worker("urgent", "urgent-retry"): …``."""

    @contextlib.contextmanager
    def run(*queues: str, broker: Broker | None = None, threads: int = 4, poll_ms: int = 10) -> Iterator[Worker]:
        broker = broker or dramatiq.get_broker()
        _require_declared(queues, broker)
        if broker not in _booted:
            _booted.add(broker)
            broker.emit_after("process_boot")
        before = list(broker.middleware)
        worker = Worker(broker, queues=set(queues) or None, worker_threads=threads, worker_timeout=poll_ms)
        # Dramatiq knows one event loop a process. One that another worker started is to be there for its end, or its
        # thread would keep this process from ending.
        loop_before = get_event_loop_thread()
        worker.start()
        loop = get_event_loop_thread()
        try:
            yield worker
        finally:
            set_event_loop_thread(loop)
            worker.stop(timeout=5_000)
            set_event_loop_thread(loop_before)
            broker.middleware[:] = before
            broker.close()

    return run


@pytest.fixture
def process_environment(valkey_url, request) -> dict[str, str]:
    """Environment for a process that works on this test's Valkey and database (use with ``transactional_db``)."""
    return {**os.environ, "SWITCHYARD_BROKER_URL": valkey_url, "DATABASE_URL": _database_url()}


def _database_url() -> str:
    from django.db import connection

    if POSTGRES:
        return (PGBOUNCER or POSTGRES).url_of(connection.settings_dict["NAME"])
    return f"sqlite:///{connection.settings_dict['NAME']}"
