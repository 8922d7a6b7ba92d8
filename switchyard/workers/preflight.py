"""First step of every long-running process: refuse to start in a misconfigured yard; its output and its broker's watch.

The watch has no thread: a process with a loop calls :meth:`Watch.look` when :meth:`Watch.seconds_to_next` is over. It
takes one or two seconds when the server hangs. A look also writes to the server for processes without a loop: every
queue family refuses new messages while the server would delete them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

import msgspec
from django.conf import settings
from django.core.checks import CheckMessage, Warning, run_checks
from django.db import DEFAULT_DB_ALIAS
from dramatiq.threading import is_gevent_active

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.health.server import ACCEPT, ServerFinding, away, finding, wrong_types
from switchyard.broker.health.servers import ServerLook, servers_of
from switchyard.broker.keys import Keys
from switchyard.broker.process import memory_here, usable_cpus
from switchyard.broker.redis.calls import RedisCalls, Word, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard, remedy_for_metrics, switchyard_settings
from switchyard.console.commands import refuse
from switchyard.middleware import logs
from switchyard.workers.checks import TAG
from switchyard.workers.checks.database import unmigrated

logger = logging.getLogger("switchyard.workers")


def make_watch() -> Watch:
    """Return a watch with a connection of its own, which is not thread-safe."""
    own = switchyard_settings()
    calls = calls_on(connect(own.broker_url, profile="quick", absence=own.absence), budget_s=1.0)
    queues = [queue.name for queue in declared_yard().queues]
    return Watch(calls, declared_yard().keys, queues, production=not settings.DEBUG)


def prepare(pools: Sequence[Pool]) -> None:
    """Check that these pools may run in this process, and exit 78 where they may not; warn of what is doubtful."""
    log_to_standard_error()
    refuse_if_wrong()
    refuse_if_unwritable(pools)
    refuse_if_not_pinnable(pools)
    warn_if_too_small(pools, memory_here())
    warn_about_threads()


def refuse_if_wrong(*, ask_broker: bool = True) -> None:
    """Run the yard's system checks; print the errors to standard error and exit 78.

    Warnings are printed and do not stop the start: a broker that is down now may be up when it is needed. The keyspace
    of a usable broker is marked, see :mod:`switchyard.broker.health.server`.
    """
    found = run_checks(tags=[TAG], databases=["default"] if ask_broker else None)
    wrong = [message for message in found if message.is_serious() and not message.is_silenced()]
    if ask_broker and not wrong:
        found += [*unmigrated(DEFAULT_DB_ALIAS), *mark_keyspace()]
    for message in found:
        if message not in wrong and not message.is_silenced():
            sys.stderr.write(f"switchyard: warning: {_line(message)}\n")
    if wrong:
        refuse(*(_line(message) for message in wrong))


def refuse_if_unwritable(pools: Iterable[Pool]) -> None:
    """Refuse to start, with exit code 78, where this user cannot write the metrics of some pools."""
    own = switchyard_settings()
    for pool in pools:
        folder = own.metrics_dir / pool.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            fact = f"its metrics cannot be written to {folder} ({str(error.strerror).lower()})"
            remedy = remedy_for_metrics(error, own, getattr(settings, "SWITCHYARD", None))
            refuse(f"pool {pool.name}: {fact}; {remedy}")


def refuse_if_not_pinnable(pools: Iterable[Pool]) -> None:
    """Exit 78 when a pool names a CPU that this process may not use; warn in development, and where none is pinned."""
    usable = usable_cpus()
    for pool in pools:
        if pool.cpus and usable is None:
            logger.warning("pool %s: cpus is ignored, this platform pins no processes", pool.name)
        elif missing := set(pool.cpus).difference(usable or ()):
            named, may = (", ".join(map(str, sorted(cpus))) for cpus in (missing, usable or ()))
            remedy = "name some of these in the topology, or leave cpus out"
            fact = f"pool {pool.name}: cpus names {named}, this process may use {may}; {remedy}"
            if not settings.DEBUG:
                refuse(fact)
            logger.warning("%s", fact)


def warn_if_too_small(pools: Iterable[Pool], memory_bytes: int | None) -> None:
    """Print a warning, no refusal, if pools may take more memory than their container has."""
    limited = [pool for pool in pools if pool.most_memory_bytes]
    needed = sum(pool.most_memory_bytes or 0 for pool in limited)
    if memory_bytes is None or needed <= memory_bytes:
        return
    parts = ", ".join(
        f"{pool.most_children} children of up to {(pool.memory_limit_bytes or 0) / 1e6:,.0f} MB in pool {pool.name}"
        for pool in limited
    )
    sys.stderr.write(
        f"switchyard: warning: this container has {memory_bytes / 1e6:,.0f} MB, and its pools may take "
        f"{needed / 1e6:,.0f} MB, supervisors included: {parts}, among them a successor and those for isolated "
        "messages; raise the container's memory, or lower memory_limit_bytes, isolated or processes in the topology\n"
    )


def warn_about_threads() -> None:
    """Print a warning if the project has started threads: children are forked, with the locks that these hold."""
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    if names:
        sys.stderr.write(
            f"switchyard: warning: {len(names)} threads run before the pools fork, {', '.join(names)}: a lock that one "
            "of them holds at that moment stays locked in the child, and none of them runs there; start them at their "
            "first use, not at import or in AppConfig.ready\n"
        )


def log_to_standard_error() -> None:
    """Configure logging, unless the project's handles the library's records; no output waits for readers."""
    never_wait_for_readers()
    if not logging.getLogger("switchyard").hasHandlers():
        own = switchyard_settings()
        logs.configure(own.log_format, release=own.release)


def mark_keyspace() -> list[CheckMessage]:
    """Mark the broker's keyspace if it is a new one: W006 when it is in use and has no marker.

    In development it is marked even so, unless a process missed another marker there: a web that was tried before the
    first pool has sent work. A server that does not answer is left to the next process.
    """
    watch = make_watch()
    try:
        marked = watch.generation.prepare()
        if not marked and settings.DEBUG and not watch.generation.is_missed():
            marked = watch.generation.accept()
    except BrokerError:
        return []
    finally:
        watch.close()
    fact = "the keyspace is in use and has no marker, so nobody can tell whether a part of it is gone"
    hint = (
        f"If work was sent before the first worker, web or scheduler started, nothing is wrong: run `{ACCEPT}` once. "
        "Else see docs/how-to/mend-the-broker.md first."
    )
    return [] if marked else [Warning(fact, hint, "broker", "switchyard.W006")]


def _line(message: CheckMessage) -> str:
    subject = f"{message.obj}: " if message.obj is not None else ""
    hint = (message.hint or "").rstrip(".")
    if hint[1:2].islower():
        hint = hint[0].lower() + hint[1:]  # the hint is printed on the same line
    return "; ".join(filter(None, (f"{subject}{message.msg}", hint))) + f" ({message.id})"


# A reader that is only busy takes a line within this time; a supervisor that waits as long renews its leases in time.
WAIT_S = 1.0


def never_wait_for_readers() -> None:
    """Have ``sys.stdout`` and ``sys.stderr`` of this process, and of its forks, wait for no reader and never fail."""
    # The objects stay the same, because handlers of logs keep them; those that a project replaced are left alone.
    for stream, own in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if isinstance(stream, io.TextIOWrapper) and stream is own and not stream.closed:
            fd, kept = stream.fileno(), {"encoding": stream.encoding, "errors": stream.errors}
            with contextlib.suppress(OSError):
                stream.flush()
            stream.detach()
            stream.__init__(PatientOutput(fd), **kept, line_buffering=True)  # type: ignore[misc]


class PatientOutput(io.RawIOBase):
    """Writes to a descriptor that never fail, and wait for a second, or not at all after a line was dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._dropped = 0
        self._write, self._most_bytes = _non_blocking(fd)
        self._select = _select()

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write, or drop what cannot be written."""
        text = bytes(data)
        try:
            if self._dropped:
                self._put(b"\n[switchyard: nobody read this output, %d lines dropped]\n" % self._dropped, 0.0)
                self._dropped = 0
            self._put(text, WAIT_S)
        except OSError:  # no room, no reader any more, a full disk
            self._dropped += text.count(b"\n")
        return len(text)

    def _put(self, text: bytes, wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while text:
            if not self._select([], [self._fd], [], max(deadline_s - time.monotonic(), 0.0))[1]:
                raise BlockingIOError
            with contextlib.suppress(BlockingIOError):  # another process was quicker
                text = text[self._write(text[: self._most_bytes]) :]


def _select() -> Callable[..., Any]:
    """Return the ``select`` of Python: gevent's refuses to wait in its hub, where interrupts of tasks are logged."""
    if not is_gevent_active():
        return select.select
    from gevent.monkey import get_original

    return cast("Callable[..., Any]", get_original("select", "select"))


def _non_blocking(fd: int) -> tuple[Callable[[bytes], int], int]:
    """Return a function that writes without blocking, and how many bytes it may be given."""
    # The descriptor itself is shared with other programs, which would not expect it to be non-blocking.
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return partial(os.write, fd), sys.maxsize
    with contextlib.suppress(OSError):
        own = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return partial(os.write, own), sys.maxsize
    # A socket, or a pipe of another user: so much has room once there is some.
    return partial(os.write, fd), select.PIPE_BUF


EVERY_S: Final = 5.0
# Of the types of all keys, some hundred answers: sooner while one is wrong.
TYPES_EVERY_S: Final = 60.0
# Time to live of a refusal: three looks may be missed before it expires.
REFUSED_MS: Final = 20_000
ITS_OWN: Final = (
    "Something else writes below its prefix, or this user may not read it: give Switchyard a server of its own."
)

broker_logger = logging.getLogger("switchyard.broker")


class Health(msgspec.Struct, frozen=True):
    """Result of a look.

    Args:
        findings: Worst first.
        news: Findings that the look before did not have.
        pause: Why pools must not fetch; "" when they may.
    """

    findings: tuple[ServerFinding, ...] = ()
    news: tuple[ServerFinding, ...] = ()
    pause: str = ""

    @property
    def red(self) -> bool:
        """Whether work is lost, refused or held up."""
        return any(found.severity == "error" for found in self.findings)


class Watch:
    """Looks at one server for one process, every 5 s, over an access that nothing else uses."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Sequence[str], *, production: bool) -> None:
        self.health = Health()
        self._calls, self._servers = calls, servers_of(calls, keys, queues)
        self.generation = self._servers.keyspace()
        self._families = [keys.queue(queue) for queue in queues]
        self._production = production
        self._look_at_s = self._types_at_s = 0.0
        self._lost: list[ServerFinding] = []
        self._foreign: list[ServerFinding] = []
        self._refusing = False

    def seconds_to_next(self) -> float:
        return max(self._look_at_s - time.monotonic(), 0.0)

    @property
    def told_away(self) -> bool:
        """Whether the server did not answer the last look."""
        return any(found.code == "away" for found in self.health.findings)

    def look(self) -> Health:
        """Look now; log what is new and what is over. Raises nothing for a server that is away."""
        before = {found.code: found for found in self.health.findings}
        try:
            found = self._ask()
        except BrokerUnavailable as error:
            # The last known state of the keyspace holds until the next successful look.
            found = [away(error), *self._lost]
        pause = next((item.seen for item in found if item.code == "keyspace"), "")
        news = tuple(item for item in found if item.code not in before)
        for item in news:
            level = logging.ERROR if item.severity == "error" else logging.WARNING
            broker_logger.log(level, "broker: %s; %s", item.seen, item.remedy)
        codes = {item.code for item in found}
        for code in () if "away" in codes else before.keys() - codes:  # what is not seen may still be so
            broker_logger.info("broker: resolved: %s", before[code].seen)
        self.health = Health(tuple(sorted(found, key=lambda item: item.severity)), news, pause)
        self._look_at_s = time.monotonic() + EVERY_S
        return self.health

    def close(self) -> None:
        """Close the connection. The next look opens another."""
        self._calls.close()

    def _ask(self) -> list[ServerFinding]:
        looks = self._servers.read(production=self._production)
        markers, probes = self.generation.commands(), self._servers.probes()
        # In one pipeline: each waits a second for a node that hangs, and the supervisor waits for the look.
        answers = self._calls.pipeline([*markers, *probes], raise_errors=False)
        marked, probed = answers[: len(markers)], answers[len(markers) :]
        if time.monotonic() >= self._types_at_s:
            self._look_at_keys()
        found = self._servers.findings(looks) + self._servers.judge_probes(probed) + self._foreign
        self._lost = finding(self.generation.look(marked), self.generation.where_lost())
        if (failed := self.generation.failure(marked)) is not None:
            # A replica that lost its primary still answers what the servers were asked before.
            seen = f"the broker's own keys cannot be read ({getattr(failed, 'cause', str(failed))[:80]})"
            unreadable = ServerFinding("unreadable", "error", seen, ITS_OWN)
            found.append(away(failed) if isinstance(failed, BrokerUnavailable) else unreadable)
        found += self._lost
        self._leave_word(looks)
        return found

    def _look_at_keys(self) -> None:
        # A refusal that another client wrote without an end would hold for ever.
        expiries: list[tuple[Word, ...]] = [("PEXPIRE", each.refused, REFUSED_MS, "NX") for each in self._families]
        self._foreign = wrong_types(self._calls, self._families, also=expiries)
        self._types_at_s = 0.0 if self._foreign else time.monotonic() + TYPES_EVERY_S

    def _leave_word(self, looks: Sequence[ServerLook]) -> None:
        evicting = {look.place: item.seen for look in looks for item in look.findings if item.code == "evicting"}
        if not evicting and not self._refusing and not self._lost:
            return
        commands: list[tuple[Word, ...]] = []
        for keys in self._families:
            seen = evicting.get(self._calls.place_of(keys.refused)) if evicting else None
            if seen is not None:
                commands.append(("SET", keys.refused, seen, "PX", REFUSED_MS))
            elif self._refusing:
                commands.append(("DEL", keys.refused))
        if self._lost:
            commands += self.generation.miss_commands()
        answers = self._calls.pipeline(commands, raise_errors=False)
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        self._refusing = bool(evicting) or (self._refusing and bool(refused))
