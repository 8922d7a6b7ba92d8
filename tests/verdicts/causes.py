"""How each situation is made: real processes, signals, locks and servers, which know nothing of how it is judged."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import msgspec
import psutil
import psycopg

from switchyard.broker.admin.purge import set_aside
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores.yard_facts import HOUR_MS, MINUTE_MS, SPAN_MS, actor_subject, span_of
from switchyard.long_running import SCHEDULER
from tests.verdicts.watched_yard import START_S, WATCHER, WatchedYard, endpoint, steadily, stopped
from tests.waiting import wait_for

Make = Callable[[WatchedYard], AbstractContextManager[object]]


def had_a_past(yard: WatchedYard, **a_minute: dict[int, int]) -> None:
    """Record three hours of facts of actors, up to four minutes ago: counts of each minute."""
    store, now = yard.facts, yard.facts.server_ms()
    for span in range(span_of(now - 3 * HOUR_MS), now - 4 * MINUTE_MS, SPAN_MS):
        last = min((now - 4 * MINUTE_MS - span) // MINUTE_MS, SPAN_MS // MINUTE_MS)
        for actor, counts in a_minute.items():
            packed = msgspec.msgpack.encode(dict.fromkeys(range(last), counts))
            yard.server.admin.hset(Keys().facts_span(span), actor_subject(actor), packed)
    assert store.minutes(actor_subject(next(iter(a_minute))), now - HOUR_MS, now)


def sends(actor: str, queue: str, *args: object, count: int) -> Make:
    """Return a situation of jobs that are sent; those that have not started at its end are dropped.

    Enough of them, or long ones, stand for longer than a busy machine takes for a reading.
    """

    @contextmanager
    def make(yard: WatchedYard) -> Iterator[None]:
        yard.send(actor, queue, *args, count=count)
        yield
        set_aside(yard.family(queue), f"{actor}-purge", by="ada", undo_ms=0)

    return make


def between(do: Callable[[WatchedYard], object], undo: Callable[[WatchedYard], object]) -> Make:
    """Return a situation that stands between one act and another."""

    @contextmanager
    def make(yard: WatchedYard) -> Iterator[None]:
        do(yard)
        try:
            yield
        finally:
            undo(yard)

    return make


@contextmanager
def a_little_late(yard: WatchedYard) -> Iterator[None]:
    """Keep a few more quick jobs waiting than the slots of urgent start within its promise.

    Four slots start four jobs of 60 ms at a time: the oldest of twelve has waited for between 120 and 180 ms.
    """

    def refill() -> None:
        if (missing := 12 - yard.waiting("urgent")) > 0:
            yard.send("login_mail", "urgent", 60, count=missing)

    with steadily(refill, 0.02):
        yield


@contextmanager
def endpoint_down(yard: WatchedYard) -> Iterator[None]:
    """Deliver to an HTTP server that answers 500."""
    with endpoint() as (url, _):
        yard.send("deliver_webhook", "hooks", url, count=20)
        yield


@contextmanager
def retry_storm(yard: WatchedYard) -> Iterator[None]:
    """Let more than 100 jobs fail at a bank that answers 500, and come back once it answers 200."""
    with endpoint() as (url, answer):
        yard.send("call_bank", "default", url, count=120)
        yield
        answer["status"] = 200
        wait_for(lambda: not yard.stats("default").retry.total, START_S, what="the retries")


@contextmanager
def half_failing(yard: WatchedYard) -> Iterator[None]:
    """Run an actor of whose jobs every second one fails for good."""
    for number in range(40):
        yard.send("vat_report", "default", number)
    yield


@contextmanager
def letters_of_before(yard: WatchedYard) -> Iterator[None]:
    """Let jobs give up, as if 20 min ago."""
    yard.send("old_report", "default", 1, count=3)
    letters = "switchyard_dead_letters_deadletter SET died_at = datetime('now', '-20 minutes') WHERE actor ="
    with steadily(lambda: yard.execute(f"UPDATE {letters} 'old_report'"), 1.0):
        yield


@contextmanager
def mail_server_silent(yard: WatchedYard) -> Iterator[None]:
    """Send mails of two queues to a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as server:
        port = server.getsockname()[1]
        yard.send("newsletter", "default", port, count=80)
        yard.send("reset_mail", "urgent", port, count=40)
        yield
        for queue in ("urgent", "default"):
            wait_for(lambda queue=queue: not yard.stats(queue).live.total, START_S, what=f"the mails of {queue}")


@contextmanager
def fans_out(yard: WatchedYard) -> Iterator[None]:
    """Run jobs that send themselves, until their actor is paused."""
    yard.send("fan_out", "default", count=250)
    yield
    yard.manage("actors", "pause", "fan_out")
    wait_for(lambda: not yard.stats("default").live.running, START_S, what="the end of what runs")
    set_aside(yard.family("default"), "d-purge", by="ada", reason="")
    yard.manage("actors", "resume", "fan_out")


@contextmanager
def one_customer_floods(yard: WatchedYard) -> Iterator[None]:
    """Send 2,000 jobs of one customer, and one of each of a hundred others; purge what is left."""
    yard.send("sync_customer", "default", 7, count=2_000)
    for number in range(100):
        yard.send("sync_customer", "default", 100 + number)
    yield
    set_aside(yard.family("default"), "d-purge", by="ada", reason="")


@contextmanager
def one_customer_refused(yard: WatchedYard) -> Iterator[None]:
    """Charge twenty customers, of whom one is refused."""
    for number in range(200):
        yard.send("charge", "default", number % 20)
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
def supervisor_stopped(yard: WatchedYard) -> Iterator[None]:
    """Stop a pool's supervisor with SIGSTOP, its children too, and send jobs."""
    pid = yard.supervisor("hooks")
    with ExitStack() as stack:
        for each in (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))):
            stack.enter_context(stopped(each))
        yard.send("ping_hook", "hooks", 1, count=10)
        yield


@contextmanager
def silent_child(yard: WatchedYard) -> Iterator[None]:
    """Keep the interpreter's lock of the only child of default for 25 s, and send jobs that it cannot fetch."""
    yard.send("parse_address", "default", 25.0)
    # A job is running once it was fetched: sent then, others would run beside it.
    wait_for(lambda: yard.is_silent("default"), START_S, what="its silence")
    yard.send("send_mail", "default", 1, count=5)
    yield


def _quiet(yard: WatchedYard) -> None:
    yard.manage("workers", "quiet", "--pool", "hooks", "--reason", "bank API is away")
    yard.send("ping_hook", "hooks", 1, count=10)


quieted = between(_quiet, lambda yard: yard.manage("workers", "resume", "--pool", "hooks"))


@contextmanager
def elsewhere(yard: WatchedYard, host: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a second pool of urgent on another machine."""
    process = yard.launch(host, "runpool", "urgent", VERDICT_HOST=host, **environment)
    try:
        # Its log says "ready" before the yard knows of it: a host that is killed between the two was never there.
        wait_for(partial(yard.serves, host), START_S, what=f"a report of {host}")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        yard.server.admin.hdel("switchyard:{pools}:beats", f"urgent:{host}:{process.pid}")


@contextmanager
def host_gone(yard: WatchedYard) -> Iterator[None]:
    """Kill all of another machine at once."""
    with elsewhere(yard, "web-2") as process:
        os.killpg(process.pid, signal.SIGKILL)
        yield


@contextmanager
def clock_ahead(yard: WatchedYard) -> Iterator[None]:
    """Run a pool on a machine whose clock is 61 s ahead."""
    with elsewhere(yard, "web-3", VERDICT_CLOCK_S="61"):
        yield


@contextmanager
def uneven_host(yard: WatchedYard) -> Iterator[None]:
    """Kill the children of one of two hosts again and again."""
    with elsewhere(yard, "web-4") as process:
        killed: set[int] = set()
        for _ in range(3):
            [child] = wait_for(partial(_child, process.pid, killed), START_S, what="a child")
            killed.add(child)
            os.kill(child, signal.SIGKILL)
        yield


@contextmanager
def scheduler_hangs(yard: WatchedYard) -> Iterator[None]:
    """Stop the scheduler while its lease is renewed, after it had sent nothing for 20 min."""
    renew = partial(yard.server.admin.pexpire, Keys().lock(SCHEDULER), 15_000)
    with stopped(yard.processes["runscheduler"].pid), steadily(renew, 2.0):
        yard.execute("UPDATE switchyard_schedules_schedulestate SET since = datetime('now', '-20 minutes')")
        yield


schedule_paused = between(
    lambda yard: yard.manage("schedules", "pause", "sync_rates", "--reason", "no rates on Sundays"),
    lambda yard: yard.manage("schedules", "resume", "sync_rates"),
)


@contextmanager
def scheduler_stopped(yard: WatchedYard) -> Iterator[None]:
    """Stop the scheduler with SIGSTOP."""
    with stopped(yard.processes["runscheduler"].pid):
        yield


@contextmanager
def history_stopped(yard: WatchedYard) -> Iterator[None]:
    """Stop the history writer with SIGSTOP, and let jobs end."""
    with stopped(yard.processes["runhistory"].pid):
        yard.send("send_mail", "default", 1, count=5)
        yield


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
def table_locked(yard: WatchedYard) -> Iterator[None]:
    """Lock a table of PostgreSQL from a shell, while jobs write to it."""
    with psycopg.connect(yard.postgres.url, application_name="a shell") as connection:
        connection.execute("LOCK TABLE verdict_row IN ACCESS EXCLUSIVE MODE")
        yard.send("write_row", "hooks", "a row", count=40)
        yield
        connection.rollback()


@contextmanager
def connections_taken(yard: WatchedYard) -> Iterator[None]:
    """Open every connection that the server has, in another program; ours come as they can."""
    with ExitStack() as others:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                others.enter_context(psycopg.connect(yard.postgres.url, application_name="importer"))
        yield


# Connections are closed, and new ones are refused.
postgres_stopped = between(
    lambda yard: yard.postgres and yard.postgres.stop(), lambda yard: yard.postgres and yard.postgres.start()
)


@contextmanager
def postgres_stands_still(yard: WatchedYard) -> Iterator[None]:
    """Stop every process of PostgreSQL with SIGSTOP: connections stay open, nothing is answered."""
    with yard.postgres.standing_still():
        yield


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
def disk_full(yard: WatchedYard) -> Iterator[None]:
    """Read the overview where the state folder is on a disk of 64 MB with a file of 60 MB."""
    folder = yard.folder / "small-disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=64m none {folder} && head -c 60M /dev/zero >{folder}/results"
    run = f"{mount} && exec {shlex.join(WATCHER)}"
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", run)
    process = yard.watch("small-disk", *namespace, SWITCHYARD_STATE_DIR=str(folder))
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


no_room = between(lambda yard: yard.server.fill(), lambda yard: yard.server.make_room())
evicting = between(
    lambda yard: yard.server.config_set("maxmemory-policy", "allkeys-lru"),
    lambda yard: yard.server.config_set("maxmemory-policy", "noeviction"),
)
broker_killed = between(lambda yard: yard.server.kill(), lambda yard: yard.server.restart())
# Connections stay open, nothing is answered.
broker_stopped = between(lambda yard: yard.server.stop(), lambda yard: yard.server.cont())
# The server follows another one, as after a failover that went wrong.
replica = between(
    lambda yard: yard.server.admin.execute_command("REPLICAOF", "127.0.0.1", "1"),
    lambda yard: yard.server.admin.execute_command("REPLICAOF", "NO", "ONE"),
)
# A text is where the broker keeps a hash, as another program writes it.
overwritten = between(
    lambda yard: yard.server.admin.set(yard.family("reports").keys.bodies, "of another program"),
    lambda yard: yard.server.admin.delete(yard.family("reports").keys.bodies),
)
# Bytes that are no message, and messages in a queue that this release does not declare.
quarantined = between(
    lambda yard: yard.family("urgent").enqueue([Entry("odd", b"\xff\xfe")]),
    lambda yard: yard.server.admin.delete(yard.family("urgent").keys.quarantine),
)
undeclared = between(
    lambda yard: yard.family("renamed").enqueue([Entry("left", b"{}"), Entry("behind", b"{}")]),
    lambda yard: yard.server.admin.delete(*yard.server.admin.keys("*{renamed}*")),
)
# More mails than their rate limit lets start in a minute, and a call of an actor that no worker knows.
limited = sends("welcome", "default", 1, count=50)
parked = sends("from_the_future", "urgent", count=3)
nothing = between(lambda yard: None, lambda yard: None)


def _child(pid: int, but: set[int]) -> list[int]:
    """Return the process id of a child that runs jobs, other than some; none where there is none yet."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(pid).children()
        return [child.pid for child in children if child.pid not in but and "child" in " ".join(child.cmdline())][:1]
    return []
