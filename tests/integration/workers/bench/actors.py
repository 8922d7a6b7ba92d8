"""Actors that take as long as they are told and note where and when they ran."""

from __future__ import annotations

import ctypes
import json
import os
import time
from typing import Any

import dramatiq
from django.db import connection
from dramatiq.middleware import CurrentMessage
from gevent import monkey

STARTED, ENDED = "bench:started", "bench:ended"


@dramatiq.actor(queue_name="urgent")
def urgent_job(token: str, ms: int, how: str = "sleep") -> None:
    """Run in the threads pool."""
    run(token, ms, how)


@dramatiq.actor(queue_name="slow")
def slow_job(token: str, ms: int, how: str = "sleep") -> None:
    """Run in the processes pool."""
    run(token, ms, how)


@dramatiq.actor(queue_name="webhook")
def webhook_job(token: str, ms: int, how: str = "sleep") -> None:
    """Run in the gevent pool."""
    run(token, ms, how)


def run(token: str, ms: int, how: str) -> None:
    """Note the start, do something for a while, note the end.

    Args:
        how: Name of one of the functions below.
    """
    client: Any = dramatiq.get_broker().client  # type: ignore[attr-defined]
    place: dict[str, Any] = {
        "token": token,
        "pid": os.getpid(),
        "nice": os.nice(0),
        "patched": bool(monkey.saved),
        "owner": CurrentMessage.get_current_message().lease.owner,  # type: ignore[union-attr]
    }
    client.rpush(STARTED, json.dumps({**place, "at": time.time()}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT 42")
        place["database"] = cursor.fetchone()[0]
    WAYS[how](ms / 1000)
    client.rpush(ENDED, json.dumps({**place, "at": time.time()}))


def sleep(seconds: float) -> None:
    """Sleep in pieces: a time limit strikes between two calls, never within one."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


def hold(seconds: float) -> None:
    """Sleep in C with the interpreter's lock."""
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1_000_000)))


def hang(seconds: float) -> None:
    """Wait in C for what never comes, whatever signal does, without the interpreter's lock."""
    lock_twice(ctypes.CDLL(None))


def seize(seconds: float) -> None:
    """Wait in C for what never comes, whatever signal does, with the interpreter's lock."""
    lock_twice(ctypes.PyDLL(None))


def lock_twice(library: ctypes.CDLL) -> None:
    """Wait for a mutex that this thread holds."""
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def crash(seconds: float) -> None:
    """Sleep, then read where nothing is."""
    sleep(seconds)
    ctypes.string_at(0)


def leak(seconds: float) -> None:
    """Keep 5 MB for ever."""
    sleep(seconds)
    KEPT.append(b"x" * 5_000_000)


def gobble(seconds: float) -> None:
    """Take a gigabyte at once."""
    KEPT.append(b"x" * 1_000_000_000)


def gobble_slowly(seconds: float) -> None:
    """Take half a gigabyte, 10 MB at a time."""
    taken = []
    for _ in range(50):
        taken.append(b"x" * 10_000_000)
        time.sleep(0.02)
    sleep(5)


KEPT: list[bytes] = []
WAYS = {way.__name__: way for way in (sleep, hold, hang, seize, crash, leak, gobble, gobble_slowly)}
