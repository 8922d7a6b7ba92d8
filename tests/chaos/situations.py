"""Situations that the overview names: how each is made, its sentence, its seconds and its button.

``docs/reference/verdicts.md`` lists the same. Each is made by means that know nothing of how the overview judges.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import psutil

from broker.admin.purge import set_aside
from broker.queue import administration
from broker.queue.results import Entry
from tests.chaos.verdicts import WatchedYard, steadily, stopped
from tests.waiting import wait_for

SOON_S, BEAT_S = 10.0, 20.0
Make = Callable[[WatchedYard], AbstractContextManager[object]]


@dataclass(frozen=True)
class Situation:
    """One row of the page of verdicts.

    Args:
        title: The situation, as in the page.
        sentence, button: Patterns of what is said; an empty button: there is none.
        within_s: From the cause, or from the first late job.
        first: It is the headline of its group.
        then: Pattern of the text beside the button.
    """

    title: str
    make: Make
    sentence: str
    button: str
    within_s: float = SOON_S
    first: bool = True
    then: str = ""


def sends(actor: str, queue: str, *args: object, count: int) -> Make:
    """Return a situation of jobs that are sent."""

    @contextmanager
    def make(yard: WatchedYard) -> Iterator[None]:
        yard.send(actor, queue, *args, count=count)
        yield

    return make


@contextmanager
def a_little_late(yard: WatchedYard) -> Iterator[None]:
    """Keep a few more quick jobs waiting than the slots of urgent start within its promise."""

    def refill() -> None:
        if (missing := 8 - yard.waiting("urgent")) > 0:
            yard.send("login_mail", "urgent", 60, count=missing)

    with steadily(refill, 0.02):
        yield


@contextmanager
def endpoint_down(yard: WatchedYard) -> Iterator[None]:
    """Deliver to an HTTP server that answers 500."""

    class Broken(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yard.send("deliver_webhook", "hooks", f"http://127.0.0.1:{server.server_port}/", count=20)
        yield
        server.shutdown()


@contextmanager
def half_failing(yard: WatchedYard) -> Iterator[None]:
    """Run an actor of whose jobs every second one fails for good."""
    for number in range(40):
        yard.send("vat_report", "default", number)
    yield


@contextmanager
def paused(yard: WatchedYard) -> Iterator[None]:
    """Pause a queue for an hour, and send jobs."""
    family = yard.family("hooks")
    seconds, _ = yard.server.admin.time()
    administration.pause(family, until_ms=(int(seconds) + 3600) * 1000, by="ada", reason="bank API is away")
    yard.send("ping_hook", "hooks", 1, count=20)
    yield
    administration.resume(family)


@contextmanager
def purged(yard: WatchedYard) -> Iterator[None]:
    """Set aside what waits in a paused queue, as a purge does."""
    family = yard.family("urgent")
    administration.pause(family, by="ada")
    yard.send("login_mail", "urgent", 1, count=7)
    set_aside(family, "a-purge", by="ada", reason="sent twice")
    administration.resume(family)
    yield


@contextmanager
def limited(yard: WatchedYard) -> Iterator[None]:
    """Send more mails than their rate limit lets start in a minute."""
    yard.send("welcome", "default", 1, count=50)
    yield
    set_aside(yard.family("default"), "b-purge", by="ada", reason="")


@contextmanager
def quarantined(yard: WatchedYard) -> Iterator[None]:
    """Put bytes into a queue that are no message."""
    yard.family("urgent").enqueue([Entry("odd", b"\xff\xfe")])
    yield
    yard.server.admin.delete(yard.family("urgent").keys.quarantine)


@contextmanager
def undeclared(yard: WatchedYard) -> Iterator[None]:
    """Leave messages in a queue that this release does not declare."""
    yard.family("renamed").enqueue([Entry("left", b"{}"), Entry("behind", b"{}")])
    yield
    yard.server.admin.delete(*yard.server.admin.keys("*{renamed}*"))


@contextmanager
def parked(yard: WatchedYard) -> Iterator[None]:
    """Send a call of an actor that no worker knows."""
    yard.send("from_the_future", "urgent", count=3)
    yield
    set_aside(yard.family("urgent"), "c-purge", by="ada", reason="")


@contextmanager
def supervisor_stopped(yard: WatchedYard) -> Iterator[None]:
    """Stop a pool's supervisor with SIGSTOP, its children too, and send jobs."""
    pid = yard.supervisor("hooks")
    with ExitStack() as stack:
        for each in (pid, *_children(pid)):
            stack.enter_context(stopped(each))
        yard.send("ping_hook", "hooks", 1, count=10)
        yield


@contextmanager
def host_gone(yard: WatchedYard) -> Iterator[None]:
    """Run a second pool on another machine, and kill all of it at once."""
    process = yard.launch("elsewhere", "runpool", "urgent", VERDICT_HOST="web-2")
    wait_for(lambda: "pool urgent: ready" in yard.log("elsewhere"), 120)
    os.killpg(process.pid, signal.SIGKILL)
    yield
    yard.server.admin.hdel("switchyard:{pools}:beats", f"urgent:web-2:{process.pid}")


@contextmanager
def scheduler_stopped(yard: WatchedYard) -> Iterator[None]:
    """Stop the scheduler with SIGSTOP."""
    with stopped(yard.processes["runscheduler"].pid):
        yield


@contextmanager
def history_gone(yard: WatchedYard) -> Iterator[None]:
    """Kill the history writer, and let jobs end."""
    os.killpg(yard.processes["runhistory"].pid, signal.SIGKILL)
    yard.processes["runhistory"].wait()
    yard.send("send_mail", "default", 1, count=5)
    yield
    yard.launch("runhistory", "runhistory")


@contextmanager
def locked(yard: WatchedYard) -> Iterator[None]:
    """Hold the write lock of the database from another process, while jobs write."""
    code = f"import sqlite3,sys;c=sqlite3.connect({str(yard.database)!r},isolation_level=None,timeout=30);"
    code += "c.execute('BEGIN IMMEDIATE');print('held',flush=True);sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        yard.send("write_row", "hooks", "a row", count=40)
        yield
    finally:
        holder.kill()
        holder.communicate()


@contextmanager
def database_gone(yard: WatchedYard) -> Iterator[None]:
    """Move the database's file away."""
    aside = yard.database.with_suffix(".aside")
    shutil.move(yard.database, aside)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            yard.database.unlink()
        shutil.move(aside, yard.database)


@contextmanager
def no_room(yard: WatchedYard) -> Iterator[None]:
    """Let the server's memory be full."""
    yard.server.fill()
    try:
        yield
    finally:
        yard.server.make_room()


@contextmanager
def evicting(yard: WatchedYard) -> Iterator[None]:
    """Configure the server as a cache."""
    yard.server.config_set("maxmemory-policy", "allkeys-lru")
    try:
        yield
    finally:
        yard.server.config_set("maxmemory-policy", "noeviction")


@contextmanager
def broker_killed(yard: WatchedYard) -> Iterator[None]:
    """Kill the server; it starts again on its data."""
    yard.server.kill()
    yield
    yard.server.restart()


@contextmanager
def nothing(yard: WatchedYard) -> Iterator[None]:
    """Add nothing to the situations before."""
    yield


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


PROMISE = r"behind its promise, because"
# Situations of one group are made one after the other and stand together.
GROUPS: dict[str, tuple[Situation, ...]] = {
    "one actor holds the slots": (
        Situation(
            "40 slow jobs before quick ones on one queue",
            sends("export_invoices", "default", 4_000, count=24),
            rf"^default is .* {PROMISE} 8 × export_invoices hold all 8 slots.*; \d+ jobs wait, the oldest for",
            r"(Show who holds the 8 slots of default|Move \d+ waiting export_invoices to another queue…)",
        ),
    ),
    "slow actor": (
        Situation(
            "a slow actor on a fast queue",
            sends("slow_report", "urgent", 1_500, count=20),
            rf"^urgent is .* {PROMISE} 4 × slow_report hold all 4 slots, the longest for",
            r"Move \d+ waiting slow_report to another queue…",
            then=r"slow_report runs too long for a queue that promises a start in 80 ms",
        ),
    ),
    "a little late": (
        Situation(
            "a queue of 80 ms that is kept a little late",
            a_little_late,
            rf"^urgent is .* {PROMISE}",
            r"(Show who holds the 4 slots of urgent|Move .*)",
        ),
    ),
    "held back": (
        Situation(
            "messages in a queue that was removed",
            undeclared,
            r"^2 messages are in the queue renamed, which this release does not declare",
            "",
            within_s=BEAT_S,
        ),
        Situation(
            "a paused queue",
            paused,
            r"^hooks starts nothing, because ada paused it .*ago until .* UTC \(bank API is away\); 20 jobs wait",
            r"Resume hooks, 20 jobs…",
            first=False,
            then=r"It resumes by itself at",
        ),
        Situation(
            "a purge that can be undone",
            purged,
            r"^ada purged 7 jobs of urgent \(sent twice\); they can be put back for",
            r"Put back 7 jobs of urgent…",
            first=False,
        ),
        Situation(
            "a rate limit holds messages back",
            limited,
            r"^\d+ welcome wait for their turn, the last for \d min .*: its rate limit, 10/m, holds them back",
            r"Show \d+ held welcome",
            first=False,
        ),
        Situation(
            "bytes that are no message",
            quarantined,
            r"urgent: 1 unreadable message is quarantined",
            r"Show 1 unreadable message",
            first=False,
        ),
        Situation(
            "jobs that no worker knows",
            parked,
            r"urgent: 3 messages wait for a worker that can run them; they call from_the_future",
            r"Show 3 held from_the_future",
            first=False,
        ),
    ),
    "failing": (
        Situation(
            "an endpoint answers 500",
            endpoint_down,
            r"^127\.0\.0\.1(:\d+)? is down for deliver_webhook.*: \d+ of \d+ jobs failed in the last 5 min",
            r"(Show \d+ failed jobs of deliver_webhook|Triage \d+ dead letters of deliver_webhook)",
        ),
        Situation(
            "half of an actor's jobs fail",
            half_failing,
            r"^Half of vat_report's jobs fail with PermanentFailure: 20 of 40 in the last 5 min",
            r"Triage 20 dead letters of vat_report",
            first=False,
        ),
        Situation(
            "a critical alert that nobody acknowledged",
            nothing,
            r"critical alerts? (is|are) not acknowledged",
            r"Acknowledge \d critical alerts?…",
            first=False,
        ),
    ),
    "poison": (
        Situation(
            "a job that ends its worker",
            sends("crash_worker", "default", count=1),
            r"^The job \S+ of crash_worker ended its worker again and again, and was given up as poison",
            r"Look at the poison job of crash_worker",
            within_s=BEAT_S,
            first=False,
        ),
    ),
    "silent": (
        Situation(
            "a pool's supervisor is stopped (SIGSTOP)",
            supervisor_stopped,
            r"^hooks starts nothing, because no pool serves it: its supervisor \(pid \d+\) is stopped, .*; 10 jobs",
            r"Show every worker",
            within_s=BEAT_S,
            then=r"Run `kill -CONT \d+`: what waits starts at once",
        ),
        Situation(
            "the scheduler stands still",
            scheduler_stopped,
            r"^No scheduler leads: no schedule starts and no alert is sent",
            r"Show \d+ schedules?",
            within_s=BEAT_S,
            first=False,
        ),
        Situation(
            "no history writer",
            history_gone,
            r"^Of the history: no history writer leads",
            "",
            within_s=BEAT_S,
            first=False,
        ),
        Situation(
            "a worker's host is gone",
            host_gone,
            r"^The host web-2 reports no more since .*: urgent runs on other hosts only",
            r"Show every worker",
            within_s=BEAT_S,
            first=False,
        ),
    ),
    "locked": (
        Situation(
            "another process holds the database's write lock",
            locked,
            r"^The database is locked, by pid \d+ \(.*python.*\): nothing can be written",
            r"Show every worker",
            then=r"^(?!.*(?<!; )more slots in)Let pid \d+ end its transaction",
        ),
    ),
    "database gone": (
        Situation(
            "the database is away",
            database_gone,
            r"^The database: the SQLite file does not exist",
            "",
        ),
    ),
    "no room": (
        Situation(
            "the broker's memory is full",
            no_room,
            r"^Nothing starts and new jobs are refused, because the broker accepts no work: its memory is full",
            r"Check the broker again",
        ),
    ),
    "evicting": (
        Situation(
            "the broker is configured as a cache",
            evicting,
            r"^The broker is not safe: maxmemory-policy is",
            r"Check the broker again",
        ),
    ),
    "broker away": (
        Situation(
            "the broker is away",
            broker_killed,
            r"^No job can be sent or seen from here, because the broker does not answer",
            r"Check the broker again",
        ),
    ),
    "ended": (
        Situation(
            "a fault that has ended",
            nothing,
            r"^20 of 40 jobs of vat_report failed with PermanentFailure from .*; none since, for",
            r"Triage 20 dead letters of vat_report",
            within_s=60.0,
            first=False,
        ),
    ),
}
SITUATIONS = [situation for group in GROUPS.values() for situation in group]
