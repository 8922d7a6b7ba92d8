"""A stack dump is parsed into frames, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from django.conf import settings

from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.workers.shared.fork import stacks_file
from switchyard.workers.supervisor import report
from switchyard.workers.supervisor.report import MOST_FRAMES, MOST_STACKS, StackRequests, read_stacks

THREADS = f"""Thread 0x00007f01 (most recent call first):
  File "{sys.prefix}/lib/python3.11/site-packages/redis/client.py", line 12 in read
  File "{settings.BASE_DIR}/apps/mail/actors.py", line 40 in send <secret>
  File "{settings.BASE_DIR}/apps/mail/actors.py", line 9 in send

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 5 in wait
"""
GREENLETS = """GreenletTree
 +--- <Greenlet "Greenlet-3" at 0x7f: deliver('https://user:password@example.com')>
 |     Parent: <Hub '' at 0x7f>
 |     Spawned at:
 |       File "/usr/lib/spawner.py", line 1, in spawn
 |         Greenlet.spawn(deliver, 'password')
 |     Greenlet Locals:
 |       Local {'token': 'password'}
 |     Running:
 |       File "/usr/lib/run.py", line 906, in run
 |         result = self._run(*self.args)
 |       File "/usr/lib/deliver.py", line 7, in deliver
 |         post(password='password')
"""


def test_threads_are_told_by_file_line_and_function() -> None:
    assert read_stacks(THREADS) == [
        Stack("thread", ["redis/client.py:12 read", "apps/mail/actors.py:9 send"]),
        Stack("running thread", ["/usr/lib/python3.11/threading.py:5 wait"]),
    ]


def test_greenlets_are_told_without_arguments_locals_source_and_where_they_were_made() -> None:
    stacks = read_stacks(GREENLETS)

    assert stacks == [Stack("greenlet Greenlet-3", ["/usr/lib/deliver.py:7 deliver", "/usr/lib/run.py:906 run"])]


def test_a_long_dump_is_cut() -> None:
    frames = "".join(f'  File "x.py", line {line} in deep\n' for line in range(MOST_FRAMES + 5))

    stacks = read_stacks(f"Thread 0x1 (most recent call first):\n{frames}" * (MOST_STACKS + 5))

    assert len(stacks) == MOST_STACKS
    assert {len(stack.frames) for stack in stacks} == {MOST_FRAMES}


def test_only_what_was_written_since_the_request_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[str, list[ChildStacks]]] = []
    file: Path = stacks_file("urgent", 77)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(THREADS)
    monkeypatch.setattr(report, "WAIT_S", 0)

    def dump(pid: int, signum: int) -> None:
        with file.open("a") as appended:
            appended.write('Thread 0x1 (most recent call first):\n  File "new.py", line 1 in new\n')

    asked = StackRequests("urgent", send=dump, answer=lambda request, told: answers.append((request, told)))
    asked.begin("a request", [77])
    asked.finish()
    asked.finish()

    assert answers == [("a request", [ChildStacks(77, [Stack("thread", ["new.py:1 new"])])])]


def test_a_request_that_is_read_again_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "WAIT_S", 0)
    signalled, answers = [], []
    asked = StackRequests(
        "urgent", send=lambda pid, signum: signalled.append(pid), answer=lambda request, told: answers.append(request)
    )

    for request in ("first", "first", "second"):
        asked.begin(request, [77])
        asked.finish()

    assert (signalled, answers) == ([77, 77], ["first", "second"])
