"""Ways to spend some seconds that jobs of tests are told: sleep, hold the interpreter, hang, crash, eat memory."""

import asyncio
import contextlib
import ctypes
import gc
import io
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from importlib import import_module
from multiprocessing.connection import wait

import dramatiq
from django.db import connection
from dramatiq.brokers.stub import StubBroker


def sleep(seconds: float) -> None:
    """Sleep in pieces: a time limit strikes between two calls, never within one."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


def spin(seconds: float) -> None:
    """Compute in Python, without giving way to anything."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def query(seconds: float) -> None:
    """Have the database count, then sleep."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT max(i) FROM n"
        )
    sleep(seconds)


def defy(seconds: float) -> None:
    """Go on whatever exception comes, as a loop that must not end for one bad item."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def refuse(seconds: float) -> None:
    """Go on whatever is raised."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def fail(seconds: float) -> None:
    sleep(seconds)
    raise RuntimeError("as it was told to")


def hold(seconds: float) -> None:
    """Sleep in C with the interpreter's lock."""
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1_000_000)))


def hang(seconds: float) -> None:
    """Wait in C for what never comes, whatever signal does, without the interpreter's lock."""
    lock_twice(ctypes.CDLL(None))


def delegate(seconds: float) -> None:
    """Wait in C for another process, which does the sleeping."""
    subprocess.run(["sleep", str(seconds)], check=True)


def seize(seconds: float) -> None:
    """Wait in C for what never comes, whatever signal does, with the interpreter's lock."""
    lock_twice(ctypes.PyDLL(None))


def lock_twice(library: ctypes.CDLL) -> None:
    """Wait for a mutex that this thread holds."""
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def crash(seconds: float) -> None:
    """Sleep, say something, then read where nothing is."""
    sleep(seconds)
    logging.getLogger("switchyard.tests").warning("about to crash, api_key=%s", CANARY)
    ctypes.string_at(0)


def vanish(seconds: float) -> None:
    """Sleep, then end the process as one that has drained ends."""
    sleep(seconds)
    os._exit(0)


def vanish_early(seconds: float) -> None:
    """Sleep, then end the process as one ends whose tasks outlasted its grace."""
    sleep(seconds)
    os._exit(3)


def end_itself(seconds: float) -> None:
    """Sleep, have the process drain, and outlast its grace."""
    sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)
    refuse(60)


def chatter(seconds: float) -> None:
    """Print and log more than a pipe holds."""
    for number in range(100):
        print(number, "x" * 1_000)
        logging.getLogger("switchyard.tests").warning("y" * 1_000)


def litter(seconds: float) -> None:
    """Leave another folder, umask, limit and, in a greenlet, handler of SIGTERM; fail where a job has left them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert (os.getcwd(), os.umask(0o077), soft) == (FOLDER, MASK, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, hard))
    os.chdir("/")
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def meddle(seconds: float) -> None:
    """Change more of what all jobs of a process share; fail where a job has left it changed."""
    assert (os.environ.get("BENCH"), socket.getdefaulttimeout(), time.tzname[0]) == ("1", None, "UTC")
    assert (gc.isenabled(), logging.root.manager.disable, sys.getrecursionlimit()) == (True, 0, 1000)
    os.environ.pop("BENCH")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    socket.setdefaulttimeout(0.001)
    sys.setrecursionlimit(200)
    sys.setswitchinterval(1)
    threading.stack_size(65_536)
    gc.disable()
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")
    warnings.simplefilter("error")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    logging.basicConfig(force=True, stream=io.StringIO())
    dramatiq.set_broker(StubBroker(middleware=[]))


def leave_transaction(seconds: float) -> None:
    """Leave a thread with a transaction that keeps others from writing, and has begun before this ends."""
    begun = threading.Event()

    def begin() -> None:
        with connection.cursor() as cursor:
            for statement in LOCKING[connection.vendor]:
                cursor.execute(statement)
            begun.set()
            time.sleep(600)

    threading.Thread(target=begin, daemon=True).start()
    begun.wait()


def wait_for_transaction(seconds: float) -> None:
    """Wait in the database until what :func:`leave_transaction` has left is over, for up to a minute."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA busy_timeout = 60000")
        for statement in (*LOCKING[connection.vendor], "ROLLBACK"):
            cursor.execute(statement)


def leave_threads(seconds: float) -> None:
    """Start more threads than a child may keep."""
    for _ in range(210):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def hoard(seconds: float) -> None:
    """Open most of the files that may be open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    while not OPEN or OPEN[-1] < 240:
        OPEN.append(os.open(os.devnull, os.O_RDONLY))


def close_descriptors(seconds: float) -> None:
    """Close all files of the process, and open as many others."""
    os.closerange(3, 64)
    OPEN.extend(end for _ in range(30) for end in os.pipe())


def hold_log(seconds: float) -> None:
    logging.getLogger().handlers[0].acquire()


def freeze_clock(seconds: float) -> None:
    time.time = time.monotonic = lambda: 0.0


def open_nothing(seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sleep(seconds)


def freeze_ill(seconds: float) -> None:
    """Leave clocks that stand still, in a process that can open nothing."""
    open_nothing(0)
    freeze_clock(seconds)


def cut_off(seconds: float) -> None:
    """Have this process replaced; then, as it drains, end its connections, let it open nothing more, and fail."""
    hoard(0)
    sleep(seconds)
    open_nothing(0)
    for number in range(OPEN[-1]):
        with contextlib.suppress(OSError):
            connection = socket.socket(fileno=number)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.detach()
    raise RuntimeError("as it was told to")


def fork_copies(seconds: float) -> None:
    """Fork as libraries do, and fail unless each copy works undisturbed, ends at a signal, and leaves the message."""
    kinds = (("fork", seconds), ("fork", 60), ("spawn", 60))
    worker, doomed, spawned = (multiprocessing.get_context(kind).Process(target=sleep, args=(s,)) for kind, s in kinds)
    for process in (worker, doomed, spawned):
        process.start()
    if not (returning := os.fork()):
        raise RuntimeError("as it was told to")
    program = subprocess.Popen(["sleep", "60"], preexec_fn=int)
    program.send_signal(signal.SIGINT)
    doomed.terminate(), spawned.terminate()
    assert wait([spawned.sentinel], 10), "gevent takes the exit code of what multiprocessing spawns"
    worker.join(10), doomed.join(10)
    codes = [os.waitpid(returning, 0)[1] >> 8, worker.exitcode, doomed.exitcode, program.wait(10)]
    assert codes == [1, 0, -signal.SIGTERM, -signal.SIGINT], codes


def loop(seconds: float) -> None:
    """Run a coroutine where the task runs."""
    asyncio.run(asyncio.sleep(seconds))


def loop_elsewhere(seconds: float) -> None:
    """Run a coroutine in a thread of gevent's."""
    import_module("gevent").get_hub().threadpool.apply(asyncio.run, (asyncio.sleep(seconds),))


def exhaust(seconds: float) -> None:
    """Sleep, then open files until none more can be opened, and keep them."""
    sleep(seconds)
    hoard(0)
    while True:
        OPEN.append(os.open(os.devnull, os.O_RDONLY))


def fell(seconds: float) -> None:
    """Sleep, then kill the whole process group: supervisor and all children, as the kernel kills a container."""
    sleep(seconds)
    os.killpg(0, signal.SIGKILL)


def leak(seconds: float) -> None:
    sleep(seconds)
    KEPT.append(b"x" * 5_000_000)


def gobble(seconds: float) -> None:
    KEPT.append(b"x" * 1_000_000_000)


def gobble_slowly(seconds: float) -> None:
    """Take half a gigabyte, 10 MB at a time."""
    taken = []
    for _ in range(50):
        taken.append(b"x" * 10_000_000)
        time.sleep(0.02)
    sleep(5)


async def await_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def await_spin(seconds: float) -> None:
    """Compute on the event loop, without giving way to any other coroutine."""
    spin(seconds)


async def await_refuse(seconds: float) -> None:
    """Go on however often it is cancelled."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)


LOCKING = {"sqlite": ("BEGIN IMMEDIATE",), "postgresql": ("BEGIN", "SELECT pg_advisory_xact_lock(4711)")}
KEPT: list[bytes] = []
OPEN: list[int] = []
FOLDER, MASK = os.getcwd(), os.umask(0o022)
os.umask(MASK)
CANARY = "c4n4ry"  # a secret that nobody may be shown
WAYS = {
    way.__name__: way
    for way in (
        sleep, spin, query, defy, refuse, fail, hold, hang, delegate, seize, crash,
        vanish, vanish_early, end_itself, exhaust, cut_off, open_nothing, fell, leak, gobble, gobble_slowly,
        chatter, litter, meddle, leave_transaction, wait_for_transaction, leave_threads,
        hoard, close_descriptors, hold_log, freeze_clock, freeze_ill, fork_copies,
        loop, loop_elsewhere,
    )
}  # fmt: skip
ASYNC_WAYS = {way.__name__: way for way in (await_sleep, await_spin, await_refuse)}
