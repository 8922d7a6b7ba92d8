"""The page "A message's life" names every file of ours that runs for a message."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from apps.exports.actors import export_dataset
from switchyard.alerts.services import dispatch_due
from switchyard.broker.interface import Facilities
from switchyard.dead_letters.actions import requeue
from tests.conftest import RunWorker
from tests.factories.callers import Caller
from tests.factories.shop import make_customer
from tests.unit.documentation.message_walk import FAILURE, MAIN, ROOT, files, passed_over
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
OURS = ("apps", "middleware", "project", "switchyard")


@cache
def real(name: str) -> Path:
    """Return the path behind the link ``switchyard/middleware``."""
    return Path(name).resolve()


@contextmanager
def noting_files() -> Iterator[set[Path]]:
    """Note the files of ours whose functions run, in this thread and in those that start meanwhile."""
    found: set[Path] = set()
    noting = threading.Event()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if not noting.is_set():  # a thread that outlives the test
            sys.setprofile(None)
        elif event == "call" and frame.f_code.co_name != "<module>":
            path = real(frame.f_code.co_filename)
            if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OURS:
                found.add(path)

    handle_interrupts()
    noting.set()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        noting.clear()


class Handled(Exception):
    """Exception that nothing but :func:`handle_interrupts` raises."""


def handle_interrupts() -> None:
    """Have the interpreter handle asynchronous exceptions that were taken back, or whose thread has ended.

    CPython 3.11 goes on to look for them at the entry of each function, and under a profile function stays there.
    """
    with suppress(Handled):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Handled))
        deadline_s = time.monotonic() + 1
        while time.monotonic() < deadline_s:
            pass


def unnamed(found: set[Path], parts: tuple[str, ...]) -> list[str]:
    """Return the files that the page neither names on the way nor passes over with a reason."""
    rest = {path.relative_to(ROOT).as_posix() for path in found - files(parts)}
    return sorted(name for name in rest if not name.startswith(passed_over()))


def fail(*args: Any, **kwargs: Any) -> None:
    """Fail as a dependency does that is away for a while."""
    raise ConnectionError("away")


def test_a_job_that_succeeds(facilities: Facilities, run_worker: RunWorker) -> None:
    make_customer()
    caller = Caller()
    caller.get("/jobs/none")  # the first request builds the API

    with noting_files() as found:
        answer = caller.post("/exports", {"dataset": "customers", "format": "csv"})
        job_id = answer.json()["job_id"]
        with run_worker("slow"):
            wait_for(lambda: (record := facilities.records.read(job_id)) and record.ended)
        caller.get(f"/jobs/{job_id}")

    assert unnamed(found, MAIN) == []


def test_a_job_that_fails_until_a_person_requeues_it(
    facilities: Facilities, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.exports.services.export", fail)

    with noting_files() as found:
        job = export_dataset.send_with_options(
            kwargs={"dataset": "customers", "format": "csv"}, max_retries=1
        ).message_id
        with run_worker("slow", "slow-retry"):
            wait_for(lambda: (record := facilities.records.read(job)) and record.state == "dead")
        dispatch_due()
        requeue(job, by="an operator")

    assert unnamed(found, MAIN + FAILURE) == []
