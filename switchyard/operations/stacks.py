"""Stacks of children in words: what each does, and which frames are those of the project's own tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.conf import switchyard_settings

# Our own machinery within the project; other files of the project are of a task, all others of packages.
MACHINERY = re.compile(r"^(switchyard/|middleware/|manage\.py)")
INTERPRETER = re.compile(r"^(?:/[^:]*)?/lib/python3\.\d+/(?=[^:]*:\d)")
# Where a thread waits, for what.
WAITS = (
    (re.compile(r" (wait|_wait_for_tstate_lock|sleep|select|poll|epoll|accept|get|acquire|join)$"), "waits"),
    (re.compile(r" (recv\w*|read\w*|send\w*|connect)$"), "talks to the network"),
)


def shown_stacks(children: Sequence[ChildStacks]) -> list[dict[str, Any]]:
    """Return children as a page shows them: the stacks that run a task, and the others."""
    return [
        {
            "pid": child.pid,
            "tasks": [_shown_stack(stack) for stack in child.stacks if stack.runs_task],
            "others": [_shown_stack(stack) for stack in child.stacks if not stack.runs_task],
        }
        for child in children
    ]


def _shown_stack(stack: Stack) -> dict[str, Any]:
    """Return a stack with what it does, and its frames, each with whether it is of a task."""
    # "Running" is what faulthandler says of the thread that writes the stacks: it was interrupted, and need not run.
    name = "thread that was interrupted to write this" if stack.of == "running thread" else stack.of
    innermost = stack.frames[0] if stack.frames else ""
    waits = next((word for pattern, word in WAITS if pattern.search(innermost)), "works")
    frames = [(INTERPRETER.sub("", frame), _is_own(frame)) for frame in stack.frames]
    return {"of": name, "does": "runs a task" if stack.runs_task else waits, "frames": frames}


def _is_own(frame: str) -> bool:
    """Return whether a frame is in a file of the project, and not of our own machinery."""
    file = frame.rpartition(":")[0]
    inside = not file.startswith("/") and not MACHINERY.match(file)
    return inside and (Path(switchyard_settings().base_dir) / file).is_file()


def own_frame(stacks: Sequence[Stack]) -> str:
    """Return the innermost own frame of the stacks that do not wait; "" where there is none, or more than one."""
    working = [stack.frames for stack in stacks if stack.frames and not WAITS[0][0].search(stack.frames[0])]
    found = {next(filter(_is_own, frames), "") for frames in working}
    return found.pop() if len(found) == 1 else ""
