"""Stacks of a pool's children, requested through the broker by a page of the admin on any machine.

The supervisor finds requests with each of its reports, so that no port is open. Its answer has frames alone (file,
line, function): no arguments and no source lines, which may contain secrets.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.conf import switchyard_settings
from switchyard.workers.shared.stack_files import stacks_file

# A dump is written within a signal handler; a child under load may be that late.
WAIT_S = 0.5
MOST_STACKS, MOST_FRAMES = 100, 40
# Most bytes that are read of a child's dump; 100 greenlets write less.
MOST_BYTES = 400_000

_FRAME = re.compile(r'^[\s|:+-]*File "(?P<file>[^"]*)", line (?P<line>\d+),? in (?P<function>[\w.<>]+)\s*$')
# Thread header as faulthandler writes it. Gevent's dump repeats the threads.
_THREAD = re.compile(r"^(?P<current>Current t|T)hread 0x[0-9a-f]+ .*\(most recent call first\)")
_GREENLET = re.compile(r'^[\s|:+-]*<(?P<kind>\w*Greenlet\w*|Hub|greenlet\.greenlet)(?: "(?P<name>[\w.-]+)")?')
# Parts of gevent's dump that are no stack: where a greenlet was spawned, and its locals.
_OTHER = re.compile(r"^[\s|:+-]*(Thread 0x|Spawned at|Parent|Greenlet Locals|Spawn Tree Locals)\b")
_RUNNING = re.compile(r"^[\s|:+-]*(Running|Currently)\b")


class StackRequests:
    """Request for stacks: children write their stacks, and the answer is sent half a second later.

    Args:
        send: Signals a child, given pid and signal.
        answer: Answers a request.
    """

    def __init__(
        self, pool_name: str, *, send: Callable[[int, int], None], answer: Callable[[str, list[ChildStacks]], None]
    ) -> None:
        self._pool_name = pool_name
        self._send, self._answer = send, answer
        self._request = self._begun = ""
        self._offsets: dict[int, int] = {}
        self._at_s = 0.0

    def begin(self, request: str, pids: Iterable[int]) -> None:
        """Have children write their stacks, for a request. One that was begun before is not begun again."""
        if request == self._begun:
            return
        self._request = self._begun = request
        self._at_s = time.monotonic() + WAIT_S
        self._offsets = {pid: _size(stacks_file(self._pool_name, pid)) for pid in pids}
        for pid in self._offsets:
            self._send(pid, signal.SIGUSR1)

    def finish(self) -> None:
        """Answer the request when its answer is due."""
        if self._request and time.monotonic() >= self._at_s:
            request, self._request = self._request, ""
            self._answer(
                request,
                [
                    ChildStacks(pid, read_stacks(_text(stacks_file(self._pool_name, pid), offset)))
                    for pid, offset in self._offsets.items()
                ],
            )

    def seconds_to_next(self) -> float:
        """Return in how many seconds an answer is due; infinity for none."""
        return self._at_s - time.monotonic() if self._request else float("inf")


def read_stacks(text: str) -> list[Stack]:
    """Return the stacks of threads and greenlets in a dump, innermost frame first, as many as fit."""
    stacks: list[Stack] = []
    wanted = False
    for line in text.splitlines():
        if found := _THREAD.match(line):
            stacks.append(Stack("running thread" if found["current"] != "T" else "thread"))
            wanted = True
        elif found := _GREENLET.match(line):
            stacks.append(Stack(f"greenlet {found['name'] or ''}".strip()))
            wanted = True
        elif _RUNNING.match(line):
            wanted = True
        elif _OTHER.match(line):
            wanted = False
        elif wanted and stacks and (found := _FRAME.match(line)) and len(stacks[-1].frames) < MOST_FRAMES:
            stacks[-1].frames.append(f"{_short(found['file'])}:{found['line']} {found['function']}")
    for stack in stacks:
        if stack.of.startswith("greenlet"):
            stack.frames.reverse()  # gevent names the innermost one last
    return [stack for stack in stacks if stack.frames][:MOST_STACKS]


def _short(file: str) -> str:
    """Return a path relative to the project, or to the folder of installed packages."""
    _, packages, inside = file.rpartition("/site-packages/")
    return inside if packages else file.removeprefix(f"{switchyard_settings().base_dir}/")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""  # it ended meanwhile
