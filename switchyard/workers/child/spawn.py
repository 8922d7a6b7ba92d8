"""Start of a pool's children: forked from the loaded supervisor, or executed anew for gevent, and set up for it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import AsyncIO

from switchyard.broker.cores import usable_cpus
from switchyard.broker.late_imports import is_patched
from switchyard.broker.topology import Pool
from switchyard.conf import switchyard_settings
from switchyard.middleware.errors import PermanentFailure
from switchyard.workers.child.main import Assignment, serve
from switchyard.workers.shared.child_table import ChildTable
from switchyard.workers.shared.fork import fork, import_path


def pin(pool: Pool) -> None:
    """Pin this process, and the threads and processes it starts later, to those of a pool's CPUs that are there."""
    if cpus := (usable_cpus() or frozenset()).intersection(pool.cpus):
        os.sched_setaffinity(0, cpus)


def start_child(assignment: Assignment, table: ChildTable, *, close_inherited: Iterable[Callable[[], None]]) -> int:
    """Start a child, in which ``close_inherited`` closes what belongs to the supervisor alone; return its pid."""
    supervisor_pid = os.getpid()

    def run() -> int:
        pin(assignment.pool)  # before anything else: threads and executed programs inherit it
        # An isolated child runs one message at a time: it needs no greenlets, and is forked for a quick start.
        if assignment.pool.kind == "gevent":
            if is_patched():
                become_child(dramatiq.get_broker(), assignment.slots)
            elif not assignment.isolated:
                execute_patched(assignment.to_fields(), table)
        return serve(assignment, table.rows[assignment.index - 1], parent_pid=supervisor_pid)

    return fork(run, title=assignment.title, close_inherited=close_inherited)


def execute(module: str, arguments: Iterable[str]) -> NoReturn:
    """Replace this process by a module of the project, run anew with arguments."""
    os.execve(  # noqa: S606  our own interpreter and module
        sys.executable,
        [sys.executable, "-m", module, *arguments],
        {**os.environ, "PYTHONPATH": import_path(), "SWITCHYARD_RELEASE": switchyard_settings().release},
    )


def execute_patched(role: Mapping[str, Any], table: ChildTable) -> NoReturn:
    """Replace this process by one that is patched for greenlets first, with a row of a table: a child, or a parent."""
    os.set_inheritable(table.fd, True)
    arguments = [json.dumps(role), str(table.fd), str(len(table.rows)), str(table.slots)]
    execute("switchyard.workers.group.gevent_main", arguments)


def become_child(broker: Broker, slots: int) -> None:
    """Set up a process for greenlets, with a resolver thread for each slot: a name may never resolve."""
    import gevent
    from gevent import monkey

    # The parents leave these modules unpatched: they wait for processes and have no threads. Tasks may need both.
    monkey.patch_os()
    monkey.patch_signal()
    gevent.config.resolver = "thread"
    hub = gevent.get_hub()
    # A greenlet that a task left must not end the process by a ``sys.exit()``.
    hub.SYSTEM_ERROR = (SystemError,)
    del hub.resolver
    hub.threadpool.maxsize = max(10, slots)  # gevent's default
    asyncio.set_event_loop_policy(LoopsElsewhere(hub))
    drop_event_loop(broker)


class LoopsElsewhere(asyncio.DefaultEventLoopPolicy):
    """Policy that refuses an event loop in a hub's thread: its greenlets would have no other loop, and no database."""

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self._hub = hub

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new loop in another thread; ``PermanentFailure`` in that of the greenlets."""
        import gevent

        if gevent.get_hub() is self._hub:
            raise PermanentFailure(
                "this pool is of kind gevent, and an event loop (asyncio.run, async_to_sync) would run its other jobs "
                "too; write gevent.get_hub().threadpool.apply(asyncio.run, (main(),)), or send the actor to a queue of "
                "a pool of threads"
            )
        return super().new_event_loop()


def drop_event_loop(broker: Broker) -> None:
    """Remove asyncio from a broker: greenlets share one thread, and Django refuses its database where a loop runs."""
    broker.middleware = [entry for entry in broker.middleware if not isinstance(entry, AsyncIO)]
