"""A faked clock is ahead in all programs, and waits take as long as they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.chaos import faked_clock

WAIT_S = 0.3
WAITS = f"""
import json, multiprocessing, queue, select, subprocess, threading, time, asyncio
from time import sleep

def condition():
    with (waiting := threading.Condition()):
        waiting.wait({WAIT_S})

def empty():
    try:
        queue.SimpleQueue().get(timeout={WAIT_S})
    except queue.Empty:
        pass

def took_s(wait):
    began_s = time.monotonic()
    wait()
    return time.monotonic() - began_s

waits = {{
    "sleep": lambda: sleep({WAIT_S}),
    "event": lambda: threading.Event().wait({WAIT_S}),
    "condition": condition,
    "queue": empty,
    "select": lambda: select.select([], [], [], {WAIT_S}),
    "epoll": lambda: select.epoll().poll({WAIT_S}),
    "asyncio": lambda: asyncio.run(asyncio.sleep({WAIT_S})),
    "semaphore": lambda: multiprocessing.Semaphore(0).acquire(timeout={WAIT_S}),
    "program": lambda: subprocess.run(["sleep", "{WAIT_S}"], timeout=30),
}}
print(json.dumps({{
    "now": time.time(), "monotonic": time.monotonic(), "date": int(subprocess.check_output(["date", "+%s"])),
    **{{name: took_s(wait) for name, wait in waits.items()}},
}}))
"""


@pytest.mark.parametrize("ahead_s", [61, -61])
def test_a_faked_clock_is_wrong_and_waits_are_right(ahead_s: int) -> None:
    if faked_clock.library() is None:
        pytest.skip("this machine has no libfaketime: bin/test fetches it, or: sudo apt install libfaketime")
    own = {**os.environ, **faked_clock.environment(ahead_s)}

    before_s, monotonic_s = time.time(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", WAITS], env=own, capture_output=True, text=True, timeout=60)
    after_s = time.time()

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert before_s + ahead_s <= seen.pop("now") <= after_s + ahead_s
    assert int(before_s) + ahead_s <= seen.pop("date") <= after_s + ahead_s
    assert monotonic_s <= seen.pop("monotonic") <= time.monotonic()
    assert {name for name, took_s in seen.items() if took_s < WAIT_S * 0.98} == set(), "none ends early"
    assert {name for name, took_s in seen.items() if took_s > 10} == set(), "none waits for the offset"
    assert len(seen) == 9


def test_a_right_clock_needs_nothing() -> None:
    assert faked_clock.environment(0) == {}
