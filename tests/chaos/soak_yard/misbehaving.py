"""Misbehaving actors: each leaves something behind, ends what is not its own, or does not end."""

import asyncio
import contextlib
import ctypes
import decimal
import gc
import io
import json
import logging
import os
import queue
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from importlib import import_module
from typing import Any, NamedTuple

import dramatiq
import psycopg.rows
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.utils import timezone, translation
from dramatiq.brokers.stub import StubBroker

from tests.chaos.soak_yard import KINDS

FOREVER_S = 600.0
KEPT: list[Any] = []
VARIABLE = ContextVar("variable", default="")
SHARED: queue.Queue[int] = queue.Queue()


def execute(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def insert() -> None:
    execute("INSERT INTO chaos_row (job, process) VALUES (%s, %s)", "uncommitted", os.getpid())


def suspend_in_block() -> None:
    def values() -> Iterator[int]:
        with transaction.atomic():
            yield 1

    KEPT.append(values())
    next(KEPT[-1])


def leave_block(act: Callable[[], Any]) -> None:
    transaction.atomic().__enter__()
    act()


def hold_the_table() -> None:
    with transaction.atomic():
        insert()
        if connection.vendor == "postgresql":
            execute("LOCK TABLE chaos_row IN ACCESS EXCLUSIVE MODE")
        time.sleep(0.5)
        transaction.set_rollback(True)


def begin_for_ever() -> None:
    while True:
        with transaction.atomic():
            pass


def forbid_writing() -> None:
    sqlite, postgres = "PRAGMA query_only = on", "SET default_transaction_read_only = on"
    execute(sqlite if connection.vendor == "sqlite" else postgres)


def lower(limit: int, to: int) -> None:
    resource.setrlimit(limit, (to, resource.getrlimit(limit)[1]))


def crash(act: Callable[[], Any]) -> None:
    lower(resource.RLIMIT_CORE, 0)
    act()


def raise_(error: BaseException) -> None:
    raise error


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not to be shown")

    __repr__ = __str__


def repeat(*acts: Callable[[], Any]) -> None:
    while True:
        for act in acts:
            act()


def defy() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def leak_descriptors() -> None:
    lower(resource.RLIMIT_NOFILE, 256)
    repeat(lambda: KEPT.append(os.open(os.devnull, os.O_RDONLY)))


def take_memory() -> None:
    for _ in range(60):
        KEPT.append(bytearray(os.urandom(1_000_000)) * 10)


def recurse_without_limit() -> None:
    sys.setrecursionlimit(10_000_000)
    nested: list[Any] = []
    for _ in range(1_000_000):
        nested = [nested]
    json.dumps(nested)


def move_away() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    os.umask(0o777)


def ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


def change_interpreter() -> None:
    gc.disable()
    sys.setswitchinterval(10)
    sys.setrecursionlimit(200)
    socket.setdefaulttimeout(0.001)


def freeze_clock() -> None:
    frozen_s = time.time()
    time.time = time.monotonic = lambda: frozen_s


def coroutine(act: Callable[[], Any]) -> Callable[[], Any]:
    async def run() -> None:
        if asyncio.iscoroutine(result := act()):
            await result

    return run


def clear_environment() -> None:
    os.environ.clear()
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def trace_until_the_limit() -> None:
    """Raise once a time has passed, as a recipe for limits does."""
    ends_s = time.monotonic() + 0.5

    def trace(*event: Any) -> Any:
        if time.monotonic() > ends_s:
            raise TimeoutError("of another job")
        return trace

    sys.settrace(trace)


def keep_half_read() -> None:
    KEPT.append(connection.cursor())
    KEPT[-1].execute("SELECT id FROM auth_permission")
    KEPT[-1].fetchone()


def write_and_keep_half_read() -> None:
    KEPT.append(connection.cursor())
    KEPT[-1].execute("INSERT INTO chaos_row (job, process) VALUES ('a', 1), ('b', 1), ('c', 1) RETURNING job")
    KEPT[-1].fetchone()


def make_rows_of_another_kind() -> None:
    connection.ensure_connection()
    connection.connection.row_factory = sqlite3.Row if connection.vendor == "sqlite" else psycopg.rows.dict_row


def leave_transaction_to_a_thread() -> None:
    def hold() -> None:
        execute("BEGIN IMMEDIATE" if connection.vendor == "sqlite" else "BEGIN")
        insert()
        time.sleep(FOREVER_S)

    threading.Thread(target=hold, daemon=True).start()


async def change_the_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda *arguments: raise_(RuntimeError("no task")))
    loop.set_exception_handler(lambda *arguments: sys.exit(1))
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, time.sleep, FOREVER_S)


async def leave_half_read_elsewhere() -> None:
    await sync_to_async(keep_half_read)()


async def shut_executor_down() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def leave_coroutines() -> None:
    KEPT.append(asyncio.ensure_future(asyncio.sleep(FOREVER_S)))
    asyncio.get_running_loop().call_later(0.2, sys.exit, 1)


async def survive_cancellation() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER_S)


def gevent() -> Any:
    return import_module("gevent")


class Entry(NamedTuple):
    """A misbehaving actor: the pools in which it runs, and how often it is drawn (what takes long, seldom)."""

    kinds: tuple[str, ...]
    share: float
    name: str
    act: Callable[[], Any]


ANY, SLOW, FELLING = (KINDS, 1.0), (KINDS, 0.25), (KINDS, 0.05)
ASYNC, SLOW_ASYNC, GREENLETS = (("threads",), 2.0), (("threads",), 0.5), (("gevent",), 2.0)

MISBEHAVING = [
    # Ends.
    Entry(*ANY, "exits_0", lambda: os._exit(0)),
    Entry(*ANY, "exits_3", lambda: os._exit(3)),
    Entry(*ANY, "leaves_by_sys_exit", lambda: sys.exit("no such customer")),
    Entry(*ANY, "raises_interrupt", lambda: raise_(KeyboardInterrupt())),
    Entry(*ANY, "raises_generator_exit", lambda: raise_(GeneratorExit())),
    Entry(*ANY, "raises_what_cannot_be_shown", lambda: raise_(Unshowable(Unshowable()))),
    Entry(*ANY, "kills_itself", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    Entry(*ANY, "terminates_itself", lambda: os.kill(os.getpid(), signal.SIGTERM)),
    Entry(*SLOW, "stops_itself", lambda: os.kill(os.getpid(), signal.SIGSTOP)),
    Entry(*ANY, "aborts", lambda: crash(os.abort)),
    Entry(*ANY, "reads_where_nothing_is", lambda: crash(lambda: ctypes.string_at(0))),
    Entry(*ANY, "recurses_without_limit", lambda: crash(recurse_without_limit)),
    Entry(*ANY, "leaves_an_alarm", lambda: signal.alarm(1)),
    Entry(*FELLING, "terminates_its_supervisor", lambda: os.kill(os.getppid(), signal.SIGTERM)),
    Entry(*FELLING, "stops_its_supervisor", lambda: os.kill(os.getppid(), signal.SIGSTOP)),
    Entry(*FELLING, "kills_its_supervisor", lambda: os.kill(os.getppid(), signal.SIGKILL)),
    # Transactions and connections.
    Entry(*ANY, "begins", lambda: execute("BEGIN")),
    Entry(*ANY, "enters_block", lambda: leave_block(insert)),
    Entry(*ANY, "suspends_generator_in_block", suspend_in_block),
    Entry(*ANY, "closes_in_block", lambda: leave_block(connection.close)),
    Entry(*ANY, "switches_autocommit_off", lambda: transaction.set_autocommit(False) or insert()),
    Entry(*ANY, "closes_driver", lambda: connection.ensure_connection() or connection.connection.close()),
    Entry(*ANY, "begins_until_the_limit", begin_for_ever),
    Entry(*ANY, "holds_the_table", hold_the_table),
    Entry(*ANY, "forbids_writing", forbid_writing),
    Entry(*ANY, "keeps_a_cursor", keep_half_read),
    Entry(*ANY, "writes_and_keeps_a_cursor", write_and_keep_half_read),
    Entry(*ANY, "makes_rows_of_another_kind", make_rows_of_another_kind),
    Entry(*ANY, "closes_all_connections", connections.close_all),
    Entry(*SLOW, "leaves_a_transaction_to_a_thread", leave_transaction_to_a_thread),
    # Copies, processes, leaks, locks.
    Entry(*ANY, "forks_and_returns", os.fork),
    Entry(*ANY, "forks_and_exits", lambda: os.fork() or sys.exit(0)),
    Entry(*ANY, "leaves_a_process", lambda: KEPT.append(subprocess.Popen(["sleep", "30"]))),
    Entry(*SLOW, "waits_for_a_process", lambda: subprocess.Popen(["sleep", "60"]).wait()),
    Entry(*ANY, "leaks_descriptors", leak_descriptors),
    Entry(*ANY, "leaks_threads", lambda: [threading.Timer(FOREVER_S, int).start() for _ in range(60)]),
    Entry(*ANY, "takes_much_memory", take_memory),
    Entry(*SLOW, "uses_queue_until_the_limit", lambda: repeat(lambda: SHARED.put(1), SHARED.get)),
    Entry(*SLOW, "keeps_the_lock_of_the_log", lambda: logging.getLogger().handlers[0].acquire()),
    # State of the process, and of the thread.
    Entry(*ANY, "changes_folder_and_mask", move_away),
    Entry(*ANY, "changes_language_and_zone", lambda: translation.activate("fr") or timezone.activate("Asia/Tokyo")),
    Entry(*ANY, "changes_decimals", lambda: setattr(decimal.getcontext(), "prec", 2)),
    Entry(*ANY, "ignores_signals", ignore_signals),
    Entry(*ANY, "lowers_limits", lambda: lower(resource.RLIMIT_FSIZE, 0)),
    Entry(*ANY, "changes_the_interpreter", change_interpreter),
    Entry(*ANY, "freezes_the_clock", freeze_clock),
    Entry(*ANY, "clears_the_environment", clear_environment),
    Entry(*ANY, "traces_until_the_limit", trace_until_the_limit),
    Entry(*ANY, "raises_warnings", lambda: warnings.simplefilter("error")),
    Entry(*ANY, "sets_a_variable", lambda: VARIABLE.set("of another job") and None),
    Entry(*ANY, "limits_its_processor_time", lambda: lower(resource.RLIMIT_CPU, int(time.process_time()) + 2)),
    Entry(*ANY, "replaces_the_broker", lambda: dramatiq.set_broker(StubBroker(middleware=[]))),
    # Output and results.
    Entry(*ANY, "silences_logging", lambda: logging.disable(logging.CRITICAL) or logging.shutdown()),
    Entry(*ANY, "configures_logging", lambda: logging.basicConfig(force=True, stream=io.StringIO())),
    Entry(*ANY, "closes_outputs", lambda: sys.stdout.close() or sys.stderr.close()),
    Entry(*ANY, "closes_descriptors", lambda: os.closerange(3, 256)),
    Entry(*ANY, "prints_much", lambda: print("x" * 100_000)),
    Entry(*ANY, "returns_a_generator", lambda: (number for number in range(3))),
    Entry(*ANY, "returns_a_coroutine", lambda: survive_cancellation()),
    # Limits that are passed.
    Entry(*ANY, "computes", lambda: repeat(int)),
    Entry(*SLOW, "goes_on_whatever_is_raised", defy),
    Entry(*SLOW, "matches_for_ever", lambda: re.match("(a+)+$", "a" * 40 + "b")),
    # Coroutines and greenlets.
    Entry(*ASYNC, "exits_in_a_coroutine", coroutine(lambda: sys.exit(1))),
    Entry(*ASYNC, "interrupts_in_a_coroutine", coroutine(lambda: raise_(KeyboardInterrupt()))),
    Entry(*ASYNC, "stops_the_loop", coroutine(lambda: asyncio.get_running_loop().stop())),
    Entry(*ASYNC, "leaves_coroutines", leave_coroutines),
    Entry(*ASYNC, "changes_the_loop", change_the_loop),
    Entry(*ASYNC, "shuts_the_executor_down", shut_executor_down),
    Entry(*ASYNC, "keeps_a_cursor_elsewhere", leave_half_read_elsewhere),
    Entry(*ASYNC, "begins_elsewhere", coroutine(lambda: sync_to_async(execute)("BEGIN"))),
    Entry(*ASYNC, "enters_block_elsewhere", coroutine(lambda: sync_to_async(leave_block)(insert))),
    Entry(*SLOW_ASYNC, "blocks_the_loop", coroutine(lambda: time.sleep(FOREVER_S))),
    Entry(*SLOW_ASYNC, "survives_its_cancellation", survive_cancellation),
    Entry(*GREENLETS, "runs_a_loop", lambda: asyncio.run(asyncio.sleep(0.5))),
    Entry(*GREENLETS, "blocks_signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]) and None),
    Entry(*GREENLETS, "leaves_greenlets", lambda: gevent().spawn(sys.exit, 1) and None),
    Entry(*GREENLETS, "kills_its_greenlet", lambda: gevent().kill(gevent().getcurrent())),
    Entry(*GREENLETS, "breaks_its_hub", lambda: gevent().get_hub().loop.break_()),
]
