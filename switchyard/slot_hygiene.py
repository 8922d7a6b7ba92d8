"""Slot hygiene: nothing that an attempt leaves behind in its thread reaches the next one."""

from __future__ import annotations

import contextlib
import decimal
import gc
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FuturesTimeout
from contextvars import Context, copy_context
from inspect import iscoroutinefunction, unwrap
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from asgiref.sync import SyncToAsync
from django.db import connections
from django.db.backends.signals import connection_created
from django.urls import clear_script_prefix, set_urlconf
from django.utils import timezone, translation
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from switchyard.loggers import get_logger
from switchyard.middleware.errors import OpenTransaction
from switchyard.middleware.logs import running_message

# A call of the thread of async actors that takes longer is one of another job, whose transaction is its own.
LONGEST_CALL_S = 10.0

PLACE = ("NAME", "HOST", "PORT")
IDLE, OPEN, UNUSABLE = "idle", "open", "unusable"
# Statements that change their session beyond their transaction.
SESSION = re.compile(
    r"(?:\A|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:SET\s+(?!LOCAL|TRANSACTION|CONSTRAINTS)|RESET\b|PRAGMA\s+[\w.]+\s*[=(]|ATTACH\b|LISTEN\b|DECLARE\b"
    r"|CREATE\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP)",
    re.I | re.S,
)
# Functions that change it, within any statement.
CHANGING = ("advisory_lock", "set_config")
# Attributes of a driver's connection that change what later statements do or return.
OF_SQLITE = attrgetter("row_factory", "text_factory", "isolation_level")
OF_PSYCOPG = attrgetter(
    *("row_factory", "cursor_factory", "server_cursor_factory", "isolation_level", "read_only", "deferrable"),
    *("prepare_threshold", "pgconn.pipeline_status"),
)
NOTHING = "SELECT 1 WHERE 0"

# The variable of a thread's decimal context, which its module does not export; there once a thread has used decimals.
_used = Context()
_used.run(decimal.getcontext)
(DECIMAL,) = _used

log = get_logger(__name__)


class SlotHygiene(Middleware):
    """Middleware that puts a worker's thread back after each attempt: database, language, time zone, decimals, context.

    Rows that later jobs write into a transaction that is still open are lost when its connection closes:
    ``OpenTransaction`` for an actor that leaves one. Async actors share one thread for the database: a transaction that
    is open between two of its calls fails each async attempt that runs meanwhile, as rows of all may be part of it.

    Listed before the time limit alone: its after-hook runs as soon as no exception can arrive from outside. ``in_copy``
    says that this process is a copy of a worker, forked by a task.
    """

    in_copy = False

    def __init__(self) -> None:
        self._threads = _Threads()
        self._async: set[str] = set()  # names of actors
        # Connections of threads that run no attempts, with the monotonic time of their last statement.
        self._elsewhere: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._shared: WeakSet[Any] = WeakSet()  # those of the thread of async actors
        self._rolling: Future[list[str]] | None = None
        self._lost: list[str] = []  # databases of what was rolled back in the thread of async actors
        self._works = False
        self._settings: dict[str, dict[str, Any]] = {}  # of databases, by alias
        self._moved = 0  # times that they were put back
        self._after_call: Future[None] | None = None  # runs once the call of an async job that failed has ended
        self._blocked_at_s = 0.0
        connection_created.connect(self._note)

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Watch the statements of this process from now on; those of other processes are not slowed down."""
        self._works = True
        connection_created.disconnect(self._note)
        connection_created.connect(self._note)  # after the receivers of apps: what they change on a connection stays
        self._settings = {alias: dict(settings) for alias, settings in connections.settings.items()}

    def is_blocked(self) -> bool:
        """Return whether a call of the thread of async actors runs for 10 s and more after its job has ended."""
        if self._after_call is None or self._after_call.done():
            self._after_call = None
            return False
        return time.monotonic() > self._blocked_at_s

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Note the actors that are async, below what wraps them."""
        if iscoroutinefunction(unwrap(actor.fn)):
            self._async.add(actor.actor_name)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note the connections whose transaction is not the attempt's: a test may run an actor inside of one."""
        thread = self._threads.own
        thread.works, thread.lost = True, len(self._lost)
        if thread.moved != self._moved:
            thread.moved = self._moved
            for each in thread.connections:
                if not is_in_transaction(each):
                    abandon(each)
        if thread.connections:
            thread.outer = [each for each in thread.connections if state_of(each) == OPEN]
            thread.wrappers, thread.opened = {each: list(each.execute_wrappers) for each in thread.connections}, ()
        thread.context, thread.trace, thread.profile = copy_context(), sys.gettrace(), sys.getprofile()

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Put the thread back; end a process that the actor forked: it would acknowledge the message as well."""
        if self.in_copy:
            log.error("process that the actor forked ended: it returned from the actor", actor=message.actor_name)
            os._exit(0 if exception is None else 1)
        thread = self._threads.own
        now = copy_context()
        # Asking Django for language and zone takes 5 µs each.
        if is_changed(thread.context, now):
            translation.deactivate()
            timezone.deactivate()
            clear_script_prefix()
            set_urlconf(None)
            put_back(thread.context, copy_context())
        if sys.gettrace() is not thread.trace or sys.getprofile() is not thread.profile:
            sys.settrace(thread.trace)
            sys.setprofile(thread.profile)
            log.error("trace or profile function of the thread put back", actor=message.actor_name)
        if DECIMAL in now:
            decimal.setcontext(decimal.DefaultContext)
        if restored := self._restore(thread):
            log.error("database settings or wrappers put back", actor=message.actor_name, databases=", ".join(restored))
        left = self._roll_back(message.actor_name)
        if message.actor_name in self._async:
            if exception is not None and self._after_call is None:
                self._blocked_at_s = time.monotonic() + LONGEST_CALL_S
                self._after_call = SyncToAsync.single_thread_executor.submit(lambda: None)
            if found := self.roll_back_between_calls():
                with contextlib.suppress(FuturesTimeout):
                    found.result(LONGEST_CALL_S)
            elif self._elsewhere:
                SyncToAsync.single_thread_executor.submit(self._roll_back)
            left += self._lost[thread.lost :]
            thread.lost = len(self._lost)
        if left:
            databases = ", ".join(left)
            log.error("transaction left open, rolled back", actor=message.actor_name, databases=databases)
            if exception is None:
                raise OpenTransaction(message.actor_name, databases)

    def roll_back_between_calls(self) -> Future[list[str]] | None:
        """Have the thread of async actors roll back what it has open when its current call has ended."""
        if any(map(is_in_transaction, self._of_other_threads())):
            self._rolling = SyncToAsync.single_thread_executor.submit(self._roll_back)
            return self._rolling
        return None

    def strays(self) -> dict[Any, float] | None:
        """Return connections of threads of tasks' own on which a transaction is open, with their last statement's time.

        ``None`` as long as it is not known which are of the thread of async actors.
        """
        if self._rolling is None or not self._rolling.done():
            return None
        found = [each for each in self._of_other_threads() if each not in self._shared and is_in_transaction(each)]
        return {each: self._elsewhere.get(each, time.monotonic()) for each in found}

    def _of_other_threads(self) -> list[Any]:
        """Return connections of threads that run no attempts, by a copy: those threads open others meanwhile."""
        return [each for ref in self._elsewhere.keyrefs() if (each := ref()) is not None]

    def _roll_back(self, actor: str = "one that is async") -> list[str]:
        """Give up connections of this thread that are not as they were; return the databases of open transactions."""
        thread, left = self._threads.own, []
        if not thread.works:
            self._shared.update(thread.connections)
        for each, session in thread.connections.items():
            if each in thread.outer:
                continue
            state = state_of(each)
            if state == IDLE and session is not None and each.connection is not None and (cause := session.change()):
                log.error("database connection closed", cause=cause, actor=actor, database=each.alias)
                state = UNUSABLE
            if state != IDLE or each in thread.changed:
                if state == OPEN:
                    left.append(each.alias)
                    if not thread.works:  # before it ends: an attempt that no longer sees it open must find it here
                        self._lost.append(each.alias)
                abandon(each)
        thread.changed = []
        return left

    def _watch(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Note a statement's time, and a connection whose session it changes: the next job would find it changed."""
        thread, connection = self._threads.own, context["connection"]
        session = thread.connections.get(connection)
        if session is not None and getattr(cursor := context["cursor"].cursor, "name", None):
            session.keep(cursor)
        if not thread.works and connection in self._elsewhere:
            self._elsewhere[connection] = time.monotonic()
        # Statements of psycopg.sql are read by their server alone.
        if not isinstance(sql, str) or changes_session(sql):
            thread.changed = [*thread.changed, connection]
        if (message := running_message()) is None:
            return execute(sql, params, many, context)
        message.sql_s = getattr(message, "sql_s", 0.0) - time.monotonic()  # type: ignore[attr-defined]
        try:
            return execute(sql, params, many, context)
        finally:
            message.sql_s += time.monotonic()  # type: ignore[attr-defined]

    def _note(self, connection: Any, **signal: Any) -> None:
        thread = self._threads.own
        if connection not in thread.connections:
            if self._works:
                connection.execute_wrappers.append(self._watch)
            thread.wrappers = {**thread.wrappers, connection: list(connection.execute_wrappers)}
            thread.opened = (*thread.opened, connection)
        thread.connections = {**thread.connections, connection: _Session.of(connection) if self._works else None}
        if not thread.works:
            self._elsewhere[connection] = time.monotonic()

    def _restore(self, thread: _Thread) -> list[str]:
        """Put back places of databases and a thread's execute wrappers; return the names of those that differed."""
        restored, present = [], connections.settings
        for alias, settings in self._settings.items():
            if present[alias] != settings and place_of(now := present[alias]) != place_of(settings):
                now.update(zip(PLACE, place_of(settings), strict=True))
                self._moved += 1  # every connection since may be one to another database
                SyncToAsync.single_thread_executor.submit(connections.close_all)
                restored.append(alias)
        for connection, wrappers in thread.wrappers.items():
            have = connection.execute_wrappers
            if have == wrappers:
                continue
            # One that was opened inside of the block of a wrapper lacks that once the block has ended.
            kept = [each for each in wrappers if each in have] if connection in thread.opened else list(wrappers)
            if have != kept:
                connection.execute_wrappers = kept
                restored.append(connection.alias)
        return restored


class _Thread:
    """State of a thread, in an object of its own: each look into a ``threading.local`` costs as much as a call."""

    def __init__(self) -> None:
        self.works = False  # whether it runs attempts
        self.moved = self.lost = 0  # settings put back, and length of the list, when its attempt began
        self.context = Context()  # when its attempt began
        self.trace: Any = None  # functions, when its attempt began
        self.profile: Any = None
        self.connections: dict[Any, _Session | None] = {}
        self.outer, self.changed = list[Any](), list[Any]()
        # Of connections, when its attempt began, or when they were first opened, which some were in this attempt.
        self.wrappers: dict[Any, list[Any]] = {}
        self.opened: tuple[Any, ...] = ()


class _Threads(threading.local):
    def __init__(self) -> None:
        self.own = _Thread()


def is_changed(before: Context, now: Context) -> bool:
    """Return whether a variable was set between two contexts. Without one they are the same, which costs 50 ns."""
    try:
        return before != now
    except Exception:  # noqa: BLE001  # a task's values may refuse to be compared, as arrays do
        return True


def put_back(before: Context, now: Context) -> None:
    """Set variables to the values that they had, or to their defaults. One that has neither cannot be unset."""
    for variable, value in now.items():
        with contextlib.suppress(LookupError):
            earlier = before[variable] if variable in before else Context().run(variable.get)
            if earlier is not value:
                variable.set(earlier)


def place_of(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return the settings that identify the database of a connection; others, such as a password, may change."""
    return tuple(settings.get(name) for name in PLACE)


def changes_session(sql: str) -> bool:
    """Return whether a statement, or one that follows it, changes its session beyond the transaction."""
    if SESSION.match(sql) or (";" in sql and SESSION.search(sql)):
        return True
    return any(name in sql for name in CHANGING)


def state_of(connection: Any) -> str:
    """Return whether a transaction is open on a Django connection, as Django knows it or as the driver does.

    A connection of SQLite that a task has closed, and one whose driver differs on autocommit, are unusable.
    """
    if connection.in_atomic_block:
        return OPEN
    driver = connection.connection
    if driver is None:
        return IDLE
    if connection.vendor == "sqlite":
        try:
            return OPEN if driver.in_transaction else IDLE
        except connection.Database.ProgrammingError:
            return UNUSABLE
    if (server := getattr(driver, "pgconn", None)) is None:  # of psycopg 3
        return IDLE
    if server.transaction_status in (1, 2, 3):  # 0 is idle, 4 closed
        return OPEN
    return IDLE if driver.autocommit == connection.autocommit else UNUSABLE


def driver_of(connection: Any) -> Any:
    """Return the driver's own connection of a Django connection, below what traces have put around it."""
    return getattr(connection.connection, "__wrapped__", connection.connection)


def is_in_transaction(connection: Any) -> bool:
    """Return whether a transaction is open on a Django connection."""
    return state_of(connection) == OPEN


class _Session:
    """Driver's connection as it was when Django had opened it."""

    def __init__(self, connection: Any) -> None:
        self._driver = driver = driver_of(connection)
        self._open: list[Any] = []  # cursors of the server
        self._adapted = False
        self._cursor = driver.cursor() if isinstance(driver, sqlite3.Connection) else None
        self._read = OF_PSYCOPG if self._cursor is None else OF_SQLITE
        if self._cursor is None:
            self._watch_adapters()
        self._attributes, self._referents = self._read(driver), len(gc.get_referents(driver))

    @classmethod
    def of(cls, connection: Any) -> _Session | None:
        """Return a connection's session; not of other drivers, nor of a database in memory, which threads share."""
        if isinstance(driver := driver_of(connection), sqlite3.Connection):
            return None if connection.is_in_memory_db() else cls(connection)
        return cls(connection) if hasattr(driver, "pgconn") else None  # of psycopg 3

    def keep(self, cursor: Any) -> None:
        """Note a cursor of the server, which outlives the driver's."""
        self._open = [*(each for each in self._open if not each.closed), cursor]

    def change(self) -> str:
        """Return what an attempt has left to the next one that uses this connection, or nothing."""
        driver = self._driver
        if self._read(driver) != self._attributes or self._adapted:
            return "changed attributes"
        if self._cursor is None:
            return "a cursor that was not closed" if self._open and not all(each.closed for each in self._open) else ""
        # The callbacks of traces, of progress and of authorization: a driver refers to those that it has.
        if len(gc.get_referents(driver)) != self._referents:
            return "a callback"
        return "a cursor that was not read to its end" if is_half_read(driver, self._cursor) else ""

    def _watch_adapters(self) -> None:
        """Note whether adapters are registered: psycopg does not report it."""
        adapters = self._driver.adapters

        def noting(name: str) -> Callable[..., None]:
            register = getattr(type(adapters), name)  # not that of a session before, where a pool keeps connections

            def note(*arguments: Any, **named: Any) -> None:
                self._adapted = True
                register(adapters, *arguments, **named)

            return note

        for name in ("register_dumper", "register_loader"):
            setattr(adapters, name, noting(name))


def is_half_read(driver: sqlite3.Connection, cursor: sqlite3.Cursor | None = None) -> bool:
    """Return whether a statement of SQLite has not come to its end, or none is allowed any more."""
    try:  # such a statement keeps an interrupt for the next one; without it an interrupt does nothing
        driver.interrupt()
        (cursor or driver.cursor()).execute(NOTHING)
    except sqlite3.Error:
        return True
    return False


def abandon(connection: Any) -> None:
    """End a Django connection's transaction and session by closing it; the next query opens another."""
    # Django keeps a connection that is closed inside of a block, and refuses it from then on.
    connection.in_atomic_block = connection.closed_in_transaction = False
    if isinstance(driver := driver_of(connection), sqlite3.Connection):
        with contextlib.suppress(sqlite3.Error):
            driver.rollback()
        # A closed connection keeps its locks for as long as a cursor has a statement that did not end, as in a
        # traceback. Once the task has closed the connection, such a cursor cannot be closed.
        if is_half_read(driver):
            nowhere = sqlite3.connect(":memory:")
            for each in gc.get_referrers(driver):  # takes 10 ms and more
                if issubclass(type(each), sqlite3.Cursor):  # by its type: a lazy object would be evaluated
                    with contextlib.suppress(sqlite3.Error):  # one that another thread runs
                        sqlite3.Cursor.__init__(each, nowhere)
            nowhere.close()
    try:
        if connection.connection is not None:
            connection.connection.close()  # a pool of Django's would hand it to the next
        connection.close()
    finally:
        connection.connection = None
