"""State that an attempt leaves in its thread (transactions, language, time zone) reaches no later job."""

import decimal
import gc
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import FrameType
from typing import Any
from unittest.mock import MagicMock, Mock

import dramatiq
import psycopg
import psycopg.types.string
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth.models import Group, Permission
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation
from dramatiq.broker import MessageProxy

from switchyard import slot_hygiene
from switchyard.broker.shapes import DeadLetter
from switchyard.database import CONNECTION_AGE_S
from switchyard.middleware.errors import OpenTransaction
from tests.integration.middleware.conftest import Work
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
KEPT: list[Any] = []
SUSPENDED: list[Any] = []


@pytest.fixture(autouse=True)
def end_of_suspended(transactional_db) -> Iterator[None]:
    """End suspended blocks while there is a database: at the end of the process Python would report their errors."""
    yield
    while SUSPENDED:
        with suppress(DatabaseError, psycopg.Error):
            SUSPENDED.pop().close()


@pytest.fixture
def kept_connections(monkeypatch) -> None:
    """Keep connections from message to message, as a pool's child does."""
    for name, value in (("CONN_MAX_AGE", CONNECTION_AGE_S), ("CONN_HEALTH_CHECKS", True)):
        monkeypatch.setitem(connections.settings["default"], name, value)


def create_row(name: str) -> None:
    Group.objects.create(name=name)


def letters_beside_rows(work: Work, fails: Any, writes: Callable[[str], Any], count: int) -> Sequence[DeadLetter]:
    """Run an actor that fails and one that writes a row in turns, in one slot; return the dead letters."""
    writing = work.actor(writes, actor_name="writes")
    with work.run("work", threads=1):
        for number in range(count):
            fails.send()
            writing.send(f"row-{number}")
        wait_for(lambda: rows() == count)
        wait_for(lambda: work.stats.dead == count)
    return work.transport.dead_letters("work").items


def execute(sqlite: str, postgres: str = "") -> None:
    """Execute a statement, another one on PostgreSQL if it is given."""
    with connection.cursor() as cursor:
        cursor.execute(sqlite if connection.vendor == "sqlite" else postgres or sqlite)


def begin() -> None:
    """Begin a transaction that Django does not know."""
    execute("BEGIN")


def enter_block() -> None:
    """Enter a block that nobody leaves."""
    transaction.atomic().__enter__()


def suspend_in_block() -> None:
    """Keep a generator that stands within a block."""

    def values() -> Generator[int, None, None]:
        with transaction.atomic():
            yield 1

    SUSPENDED.append(suspended := values())
    next(suspended)


def keep_cursor_in_block() -> None:
    """Write in a block that nobody leaves, and keep a cursor that has not ended, as a traceback does."""
    enter_block()
    Group.objects.create(name="uncommitted")
    KEPT.append(connection.cursor())
    KEPT[-1].execute("SELECT 1 UNION ALL SELECT 2")


def close_in_block() -> None:
    """Close the connection within a block that nobody leaves, with a cursor that has not ended."""
    keep_cursor_in_block()
    connection.close()


def switch_autocommit_off() -> None:
    """Write, and leave the commit to nobody."""
    transaction.set_autocommit(False)
    Group.objects.create(name="uncommitted")


async def begin_elsewhere() -> None:
    """Begin a transaction in the thread that async actors share."""
    await sync_to_async(begin)()


async def enter_block_elsewhere() -> None:
    """Enter a block in the thread that async actors share."""
    await sync_to_async(enter_block)()


def forbid_writing() -> None:
    """Change the session of the connection."""
    execute("PRAGMA query_only = on", "SET default_transaction_read_only = on")


def forbid_writing_in_other_words() -> None:
    """Change the session by statements that do not begin with the usual word."""
    execute("PRAGMA query_only(1)", "/* x */ SELECT 1; SET default_transaction_read_only = on")


def block_the_database() -> None:
    """Hang on the connection what refuses each statement."""

    def refuse(*args: Any) -> Any:
        raise RuntimeError("no database access allowed here")

    execute("SELECT 1")
    connection.execute_wrapper(refuse).__enter__()


def move_to_another_database() -> None:
    """Write to another database from now on."""
    connection.close()
    connection.settings_dict["NAME"] = "another"


def close_driver() -> None:
    """Close the connection below Django, which does not notice."""
    connection.ensure_connection()
    connection.connection.close()


def part_autocommit() -> None:
    """Change the driver's autocommit without Django, as an exception between its step and Django's note does."""
    connection.ensure_connection()
    connection.connection.autocommit = False


def driver() -> Any:
    """Return the driver's connection, opened now if it was not."""
    connection.ensure_connection()
    return connection.connection


def make_rows_of_another_kind() -> None:
    """Have the driver return rows, and read statements, in its own way, before the first statement."""
    driver().row_factory = sqlite3.Row if connection.vendor == "sqlite" else psycopg.rows.dict_row


def read_numbers_as_text() -> None:
    """Have the driver return other types."""
    if connection.vendor == "sqlite":
        driver().text_factory = bytes
    else:
        driver().adapters.register_loader("int8", psycopg.types.string.TextLoader)


def isolate_otherwise() -> None:
    """Have the driver begin transactions in its own way."""
    sqlite, postgres = "EXCLUSIVE", psycopg.IsolationLevel.SERIALIZABLE
    driver().isolation_level = sqlite if connection.vendor == "sqlite" else postgres


def call_back() -> None:
    """Have the driver ask before each statement; on PostgreSQL, send it when it is told to."""
    if connection.vendor == "sqlite":
        driver().set_authorizer(lambda *args: sqlite3.SQLITE_DENY)
    else:
        SUSPENDED.append(pipeline := ExitStack())
        pipeline.enter_context(driver().pipeline())


def rows() -> int:
    """Return how many rows the innocent jobs have written."""
    return Group.objects.filter(name__startswith="row-").count()


@pytest.fixture
def work(works) -> Work:
    return works(max_retries=0)


@pytest.fixture
def work_of_coroutines(work) -> Work:
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()  # noted by the broker of an earlier test
    return work


@pytest.mark.parametrize(
    "leave", [begin, enter_block, suspend_in_block, close_in_block, keep_cursor_in_block, switch_autocommit_off]
)
@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_transaction_left_open_fails_its_attempt_and_takes_no_later_row(work, leave, ends):
    @work.actor
    def leaves() -> None:
        leave()
        if ends == "raises":
            raise ValueError("as it was told to")

    letters = letters_beside_rows(work, leaves, create_row, 3)

    assert not Group.objects.filter(name="uncommitted").exists()
    assert {letter.actor for letter in letters} == {"leaves"}
    assert {letter.exception for letter in letters} == {"OpenTransaction" if ends == "returns" else "ValueError"}


@pytest.mark.parametrize("leave", [begin_elsewhere, enter_block_elsewhere])
def test_a_transaction_left_open_between_calls_of_coroutines_takes_no_later_row(work_of_coroutines, leave):
    async def writes(name: str) -> None:
        await sync_to_async(Group.objects.create)(name=name)

    leaves = work_of_coroutines.actor(leave, actor_name="leaves")

    letters = letters_beside_rows(work_of_coroutines, leaves, writes, 3)

    assert {letter.exception for letter in letters} == {"OpenTransaction"}


def test_an_attempt_that_ends_while_its_row_is_rolled_back_has_failed(monkeypatch):
    executor, rolled_back, go_on = SyncToAsync.single_thread_executor, threading.Event(), threading.Event()
    executor.submit(connections.close_all).result()
    hygiene, broker, message = slot_hygiene.SlotHygiene(), Mock(), Mock(actor_name="writes")
    hygiene.before_declare_actor(broker, Mock(actor_name="writes", fn=enter_block_elsewhere))
    hygiene.before_process_message(broker, message)
    executor.submit(enter_block).result()
    executor.submit(partial(Group.objects.create, name="row-lost")).result()
    abandon = slot_hygiene.abandon

    def abandon_and_wait(each: Any) -> None:
        abandon(each)
        rolled_back.set()
        go_on.wait(60)

    monkeypatch.setattr(slot_hygiene, "abandon", abandon_and_wait)
    rolling = hygiene.roll_back_between_calls()
    assert rolling is not None and rolled_back.wait(60)
    try:
        with pytest.raises(OpenTransaction):
            hygiene.after_process_message(broker, message)
    finally:
        go_on.set()
        rolling.result(60)
    assert rows() == 0


class Opened:
    """Connection on which no transaction is open."""

    vendor, alias, in_atomic_block, connection = "other", "default", False, None

    def __init__(self) -> None:
        self.execute_wrappers: list[Any] = []


@pytest.mark.parametrize("within", [False, True])
def test_a_wrapper_around_the_opening_of_a_connection_is_gone_with_its_block(within):
    hygiene, opened, block, left = slot_hygiene.SlotHygiene(), Opened(), object(), object()
    broker, message = dramatiq.get_broker(), MessageProxy(dramatiq.Message("default", "act", (), {}, {}))

    def open_in_block() -> None:
        opened.execute_wrappers.append(block)
        connection_created.send(Opened, connection=opened)
        opened.execute_wrappers.remove(block)

    open_in_block() if not within else None
    hygiene.before_process_message(broker, message)
    open_in_block() if within else None
    own = list(opened.execute_wrappers)
    opened.execute_wrappers.append(left)
    hygiene.after_process_message(broker, message)

    assert opened.execute_wrappers == own


def test_a_connection_that_a_tasks_thread_opens_meanwhile_does_not_end_the_look_at_the_others():
    hygiene, opened = slot_hygiene.SlotHygiene(), [Opened()]
    connection_created.send(Opened, connection=opened[0])

    def open_another(frame: FrameType, event: str, _: Any) -> Any:
        """Open one between any two lines of the look, as a thread may that is switched to there."""
        if frame.f_code.co_filename == weakref.__file__ and len(opened) < 9:
            opened.append(Opened())
            connection_created.send(Opened, connection=opened[-1])
        return open_another

    before = sys.gettrace()
    sys.settrace(open_another)
    try:
        hygiene.roll_back_between_calls()
    finally:
        sys.settrace(before)

    assert len(opened) > 1


@pytest.mark.parametrize(
    "leave",
    [
        *(forbid_writing, forbid_writing_in_other_words, block_the_database, move_to_another_database, close_driver),
        *(part_autocommit, make_rows_of_another_kind, read_numbers_as_text, isolate_otherwise, call_back),
    ],
)
def test_a_session_that_was_changed_or_closed_is_not_the_next_jobs(work, leave, kept_connections):
    if connection.vendor == "sqlite" and leave is part_autocommit:
        return
    leaves, drivers = work.actor(leave, actor_name="leaves"), set[Any]()

    @work.actor
    def writes(name: str) -> None:
        Group.objects.create(name=name)
        assert Group.objects.filter(name=name).values_list("name", flat=True).get() == name
        assert isinstance(Group.objects.count(), int)
        drivers.add(driver())

    with work.run("work", threads=1):
        for number in range(3):
            leaves.send()
            writes.send(f"row-{number}")
        wait_for(lambda: rows() == 3)
        wait_for(lambda: len(drivers) == 3 or leave is block_the_database)

    assert work.stats.dead == 0


def keep_half_read() -> None:
    """Keep a cursor that was not read to its end; on PostgreSQL, one of the server."""
    cursor = connection.cursor() if connection.vendor == "sqlite" else connection.chunked_cursor()
    KEPT.append(cursor)
    cursor.execute("SELECT id FROM auth_permission")
    assert cursor.fetchone()


def iterate_half() -> None:
    """Keep an iterator over rows that was not read to its end."""
    SUSPENDED.append(rows := Permission.objects.order_by().iterator(chunk_size=2))
    assert next(rows)


def keep_half_read_of_driver() -> None:
    """Keep a cursor of the driver, of which Django knows nothing."""
    if connection.vendor == "sqlite":
        KEPT.append(driver().execute("SELECT id FROM auth_permission"))
        assert KEPT[-1].fetchone()


def write_and_keep_half_read() -> None:
    """Write rows outside of a transaction, and read some of what the statement returns."""
    cursor = connection.cursor()
    KEPT.append(cursor)
    cursor.execute("INSERT INTO auth_group (name) VALUES ('half-1'), ('half-2'), ('half-3') RETURNING id")
    assert cursor.fetchone()


# The iterator's own cursor cannot be closed any more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("leave", [keep_half_read, iterate_half, keep_half_read_of_driver, write_and_keep_half_read])
def test_a_cursor_left_half_read_hides_no_row_and_refuses_none(work, leave, kept_connections):
    """On SQLite it keeps a snapshot, and what is written beside it is not committed before it ends."""
    leaves, seen = work.actor(leave, actor_name="leaves"), list[int]()

    @work.actor
    def writes(name: str) -> None:
        seen.append(rows())
        Group.objects.create(name=name)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT name FROM pg_cursors WHERE is_holdable")
                assert not cursor.fetchall()

    with work.run("work", threads=1):
        leaves.send()
        wait_for(lambda: (live := work.stats.live).running + live.waiting == 0)
        assert Group.objects.filter(name__startswith="half").count() == (3 if leave is write_and_keep_half_read else 0)
        Group.objects.create(name="row-0")
        writes.send("row-1")
        wait_for(lambda: rows() == 2)

    assert (seen, work.stats.dead) == ([1], 0)


@pytest.mark.parametrize("leave", [forbid_writing, make_rows_of_another_kind, keep_half_read, close_driver])
def test_a_session_that_a_coroutine_has_changed_is_not_that_of_the_next(work_of_coroutines, leave, kept_connections):
    work = work_of_coroutines

    @work.actor
    async def leaves() -> None:
        await sync_to_async(leave)()

    @work.actor
    async def writes(name: str) -> None:
        await sync_to_async(Group.objects.create)(name=name)
        assert await Group.objects.filter(name=name).values_list("name", flat=True).aget() == name

    with work.run("work", threads=1):
        for number in range(3):
            leaves.send()
            writes.send(f"row-{number}")
        wait_for(lambda: rows() == 3)
        Group.objects.create(name="row-beside")

    assert work.stats.dead == 0


def test_time_limits_amid_transactions_take_no_later_row(work):
    @work.actor(time_limit=50)
    def busy() -> None:
        while True:
            with transaction.atomic():
                pass

    letters = letters_beside_rows(work, busy, create_row, 10)

    assert {letter.exception for letter in letters} == {"TimeLimitExceeded"}


def test_language_time_zone_decimals_variables_and_hooks_end_with_the_attempt(work):
    seen = list[tuple[Any, ...]]()
    tenant = ContextVar[str]("tenant", default="none")

    @work.actor
    def changes() -> None:
        of_thread = translation.get_language(), timezone.get_current_timezone_name(), decimal.getcontext().prec
        seen.append((*of_thread, tenant.get(), get_urlconf(), get_script_prefix(), sys.getprofile()))
        translation.activate("fr")
        timezone.activate("Asia/Tokyo")
        decimal.getcontext().prec = 2
        tenant.set("other")
        set_urlconf("tests.library_urls")
        set_script_prefix("/other/")
        sys.setprofile(lambda *event: None)

    with work.run("work", threads=1):
        changes.send()
        changes.send()
        wait_for(lambda: len(seen) == 2)

    assert seen[0] == seen[1]
    assert seen[0][1] != "Asia/Tokyo"
    assert seen[0][3:] == ("none", None, "/", None)


def test_values_that_refuse_to_be_compared_count_as_changed():
    variable, arrays = ContextVar[Any]("variable"), [MagicMock(__eq__=Mock(side_effect=ValueError)) for _ in "ab"]
    variable.set(arrays[0])
    before = copy_context()
    variable.set(arrays[1])

    assert slot_hygiene.is_changed(before, copy_context())


def test_an_attempt_that_leaves_nothing_costs_few_calls():
    """Asking Django for language and zone took 37 calls a message, and two fifths of its processor time with them."""
    connection.ensure_connection()
    hygiene, calls = slot_hygiene.SlotHygiene(), []
    broker, worker, message = Mock(), Mock(), Mock(actor_name="works")
    hygiene.before_worker_boot(broker, worker)

    gc.disable()  # a collection here would call what others left behind
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        hygiene.before_process_message(broker, message)
        hygiene.after_process_message(broker, message)
    finally:
        sys.setprofile(None)
        gc.enable()

    assert "deactivate" not in calls and len(calls) < 12, calls


def test_a_call_of_a_coroutine_that_outlasts_its_job_is_seen(work, monkeypatch):
    monkeypatch.setattr(slot_hygiene, "LONGEST_CALL_S", 0.0)
    release = threading.Event()
    [hygiene] = (entry for entry in work.broker.middleware if isinstance(entry, slot_hygiene.SlotHygiene))

    @work.actor(time_limit=100)
    async def waits() -> None:
        await sync_to_async(release.wait)()

    with work.run("work", threads=1):
        waits.send()
        wait_for(lambda: work.stats.dead == 1)
        wait_for(hygiene.is_blocked)
        release.set()
        wait_for(lambda: not hygiene.is_blocked())


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        *(("SET ROLE x", True), ("-- of a\n/* x */ set search_path = x", True), ("SELECT 1; RESET ALL", True)),
        *(("SELECT set_config('a', '5', false)", True), ("PRAGMA main.locking_mode=EXCLUSIVE", True)),
        *(("DECLARE c CURSOR WITH HOLD FOR SELECT 1", True), ("create local temp table x ()", True)),
        *(("SET LOCAL x = 1", False), ("UPDATE a SET b = 1", False), ("SELECT ';'", False)),
        ("INSERT INTO a VALUES (1)", False),
    ],
)
def test_statements_that_change_their_session_are_known(statement, changes):
    assert slot_hygiene.changes_session(statement) is changes
