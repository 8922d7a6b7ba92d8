"""Moments of a message's way at which a child kills itself, three times in all.

A child that runs a suspect alone does not: a message that ends its child three times is a dead letter, as it should be,
and where one child starts before the others all three deaths would be that message's.

``CHAOS_MOMENT_MARK`` is the beginning of the files that count.
"""

import functools
import os
import signal
from pathlib import Path
from typing import Any

from switchyard.broker.consumer import Consumer
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.stores.limit_counts import GroupBarriers
from switchyard.broker.worker.acks import Acks
from switchyard.workers.child.slot_tracking import SlotTracking

DEATHS = 3
# Moment -> class, method, whether it is before or after it.
MOMENTS = {
    "before the fetch": (QueueOperations, "fetch", "before"),
    "after the fetch": (QueueOperations, "fetch", "after"),
    "before it is handed out": (HeldMessage, "__init__", "after"),
    "before the slot": (SlotTracking, "before_process_message", "before"),
    "after the slot": (SlotTracking, "before_process_message", "after"),
    "after the task": (Consumer, "ack", "before"),
    "before the note": (SlotTracking, "after_ack", "before"),
    "after the note": (SlotTracking, "after_ack", "after"),
    "before the acknowledgement": (Acks, "send", "before"),
    "after the acknowledgement": (Acks, "send", "after"),
}
# Of jobs of a group alone.
GROUP_MOMENTS = {
    "after the count": (GroupBarriers, "count", "after"),
    "after the callbacks": (GroupBarriers, "note_sent", "before"),
    "after the note of the callbacks": (GroupBarriers, "note_sent", "after"),
}


def die() -> None:
    """Kill this process, unless it was done often enough, or the process runs a suspect alone."""
    if b" alone " in Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" "):
        return
    for number in range(DEATHS):
        try:
            Path(f"{os.environ['CHAOS_MOMENT_MARK']}-{number}").open("x").close()
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: type[Any], name: str, side: str) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def dying(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            die()
        answer = method(*args, **kwargs)
        if side == "after":
            die()
        return answer

    setattr(owner, name, dying)
