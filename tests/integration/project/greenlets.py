"""Run by a test in a process of its own, patched: one greenlet holds the writer's lock, the others want it."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

import django  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from tests.waiting import wait_for  # noqa: E402

GREENLETS = 64
HELD_S = 1.0
held: list[bool] = []
connected: list[bool] = []


def write() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE counted SET number = number + 1")


def want() -> None:
    """Open a connection, and wait for the lock."""
    connection.ensure_connection()
    connected.append(True)
    write()


def hold() -> None:
    """Write, and let others run before the commit, as code does that asks a server meanwhile."""
    with transaction.atomic():
        write()
        held.append(True)
        gevent.sleep(HELD_S)


def longest_pause_s(pauses: list[float]) -> None:
    while True:
        before = time.monotonic()
        gevent.sleep(0.01)
        pauses.append(time.monotonic() - before)


def main() -> None:
    django.setup()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counted (number INTEGER)")
        cursor.execute("INSERT INTO counted VALUES (0)")
    pauses: list[float] = []
    holder = gevent.spawn(hold)
    wait_for(lambda: held)
    writers = [gevent.spawn(want) for _ in range(GREENLETS)]
    wait_for(lambda: len(connected) == GREENLETS)
    watcher, used_s = gevent.spawn(longest_pause_s, pauses), time.process_time()
    gevent.sleep(HELD_S / 2)
    used_s = time.process_time() - used_s
    gevent.joinall([holder, *writers], raise_error=True)
    watcher.kill()
    with connection.cursor() as cursor:
        (number,) = cursor.execute("SELECT number FROM counted").fetchone()
    print(json.dumps({"missed": GREENLETS + 1 - number, "longest_pause_s": max(pauses), "processor_s": used_s}))


if __name__ == "__main__":
    main()
