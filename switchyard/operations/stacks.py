"""Stacks of children in words: what each does, and which frames are those of the project's own tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """One frame; ``is_own`` says that it is of a task, and not of a package or of machinery."""

    text: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class ShownStack:
    """One stack with what it does: ``runs a task``, ``waits`` or ``works``."""

    of: str
    does: str
    frames: tuple[ShownFrame, ...]


@dataclass(frozen=True, slots=True)
class ShownChild:
    """One child: the stacks that run a task, and the others."""

    pid: int
    tasks: tuple[ShownStack, ...]
    others: tuple[ShownStack, ...]


def shown_stacks(children: Sequence[ChildStacks]) -> list[ShownChild]:
    found = []
    for child in children:
        tasks, others = (tuple(_shown_stack(s) for s in child.stacks if s.runs_task == runs) for runs in (True, False))
        found.append(ShownChild(child.pid, tasks, others))
    return found


def _shown_stack(stack: Stack) -> ShownStack:
    frames = tuple(ShownFrame(INTERPRETER.sub("", frame), _is_own(frame)) for frame in stack.frames)
    # "Running" is what faulthandler says of the thread that writes the stacks: it was interrupted, and need not run.
    name = "thread that was interrupted to write this" if stack.of == "running thread" else stack.of
    innermost = stack.frames[0] if stack.frames else ""
    waits = next((word for pattern, word in WAITS if pattern.search(innermost)), "works")
    return ShownStack(name, "runs a task" if stack.runs_task else waits, frames)


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
