"""First step of every long-running process: refuse to start in a misconfigured yard; and the watch of its server."""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.core.checks import CheckMessage, Warning, run_checks
from django.db import DEFAULT_DB_ALIAS

from switchyard.broker.cores import memory_here, usable_cpus
from switchyard.broker.errors import BrokerError
from switchyard.broker.health.keyspace_id import ACCEPT
from switchyard.broker.health.watch import Watch
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard, remedy_for_metrics, switchyard_settings
from switchyard.console.commands import refuse
from switchyard.middleware import logs
from switchyard.workers.checks import TAG
from switchyard.workers.checks.database import unmigrated
from switchyard.workers.shared.output import never_wait_for_readers

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
    of a usable broker is marked, see :mod:`switchyard.broker.health.keyspace_id`.
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
