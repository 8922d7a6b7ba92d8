"""Stacks of a pool's children as a page shows them: those that run a task first, waiting machinery last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.conf import switchyard_settings
from switchyard.jobs.running import RunningJob

# Our own machinery within the project; other files of the project are of a task, all others of packages.
MACHINERY = re.compile(r"^(switchyard/|middleware/|manage\.py)")
INTERPRETER = re.compile(r"^(?:/[^:]*)?/lib/python3\.\d+/(?=[^:]*:\d)")
# Function that Dramatiq calls for each message: a stack with it runs a task.
CALL = re.compile(r"^dramatiq/worker\.py:\d+ process_message$")
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

    @property
    def runs_task(self) -> bool:
        """Return whether a task runs in it."""
        return self.does == "runs a task"


@dataclass(frozen=True, slots=True)
class ShownChild:
    """One child: the stacks that run a task, and the others."""

    pid: int
    tasks: tuple[ShownStack, ...]
    others: tuple[ShownStack, ...]


def shown(children: Sequence[ChildStacks]) -> list[ShownChild]:
    """Return the children of an answer."""
    found = []
    for child in children:
        stacks = [_shown(stack) for stack in child.stacks]
        tasks = tuple(stack for stack in stacks if stack.runs_task)
        found.append(ShownChild(child.pid, tasks, tuple(stack for stack in stacks if not stack.runs_task)))
    return found


def running_of(member: str, running: Sequence[RunningJob] | None) -> list[RunningJob] | None:
    """Return what a supervisor's children run; ``None`` where that is not known."""
    return None if running is None else [job for job in running if job.holder.member == member]


def _shown(stack: Stack) -> ShownStack:
    texts = [INTERPRETER.sub("", frame) for frame in stack.frames]
    frames = tuple(ShownFrame(text, _is_own(frame)) for text, frame in zip(texts, stack.frames, strict=True))
    # "Running" is what faulthandler says of the thread that writes the stacks: it was interrupted, and need not run.
    name = "thread that was interrupted to write this" if stack.of == "running thread" else stack.of
    return ShownStack(name, _does(stack.frames), frames)


def _is_own(frame: str) -> bool:
    """Return whether a frame is in a file of the project, and not of our own machinery."""
    file = frame.rpartition(":")[0]
    inside = not file.startswith("/") and not MACHINERY.match(file)
    return inside and (Path(switchyard_settings().base_dir) / file).is_file()


def _does(frames: Sequence[str]) -> str:
    if any(CALL.match(frame) for frame in frames):
        return "runs a task"
    innermost = frames[0] if frames else ""
    return next((word for pattern, word in WAITS if pattern.search(innermost)), "works")
