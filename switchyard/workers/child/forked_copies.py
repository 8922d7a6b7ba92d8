"""Copies of a child that its tasks fork, as multiprocessing does: none of them acts in the child's place."""

from __future__ import annotations

import faulthandler
import os
import signal
from functools import partial
from typing import Any

from switchyard.slot_hygiene import SlotHygiene
from switchyard.workers.shared.fork import HANDLED, INTERRUPT, is_patched, name_process

# Hubs of which this process is a copy. Kept, so that no greenlet of theirs is collected: it would run its ``finally``.
_left: list[Any] = []


def disown_copies(title: str) -> None:
    """Have each process that a task forks give up what is its child's: signals, stack dumps, title, greenlets.

    A copy that kept the handlers would outlive ``terminate()``, and one with its greenlets would run other tasks again.
    Signals are blocked meanwhile: one that came before the handlers are gone would be lost.
    """
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, HANDLED),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, HANDLED),
        after_in_child=partial(_disown, title),
    )


def _disown(title: str) -> None:
    SlotHygiene.in_copy = True
    try:
        signal.set_wakeup_fd(-1)
        faulthandler.disable()
        faulthandler.unregister(signal.SIGUSR1)
        for signum in (*HANDLED, INTERRUPT):
            signal.signal(signum, signal.SIG_DFL)
        name_process(f"forked by a task of {title}")
        if is_patched():
            _leave_hub()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _leave_hub() -> None:
    """Have the current greenlet open a hub of its own: the other greenlets wait for the one that they had."""
    import gevent

    hub, current = gevent.get_hub(), gevent.getcurrent()
    _left.append((hub, hub.loop))
    if hub.parent is not current:
        # A hub that ends passes control on to its parent: not to the child's main loop.
        current.parent, hub.parent = hub.parent, current
    gevent.reinit()
    hub.destroy(destroy_loop=True)
