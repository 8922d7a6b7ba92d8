"""Actors for tests of jobs, on this project's broker."""

import threading
from typing import Any

import dramatiq

from switchyard.jobs.results import save_file
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import PermanentFailure

go_on = threading.Event()


@dramatiq.actor(queue_name="default", actor_name="probe_add", store_results=True)
def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@dramatiq.actor(queue_name="default", actor_name="probe_write", store_results=True)
def write(text: str, filename: str = "hello.txt") -> dict[str, Any]:
    """Leave a file behind."""
    return save_file(filename, text.encode(), "text/plain") | {"lines": text.count("\n")}


@dramatiq.actor(queue_name="default", actor_name="probe_steps", store_results=True)
def steps(total: int) -> dict[str, int]:
    """Report progress, wait, and report the rest: cancelled in between, it stops."""
    report_progress(1, total, "first")
    assert go_on.wait(30)
    for done in range(2, total + 1):
        report_progress(done, total, "more")
    return {"total": total}


@dramatiq.actor(queue_name="default", actor_name="probe_fail")
def fail(reason: str) -> None:
    raise PermanentFailure(reason)


@dramatiq.actor(queue_name="default", actor_name="probe_keep_secret", redact=("to",))
def keep_secret(to: str, pages: int) -> None:
    """Do nothing with an argument that nobody may see."""


@dramatiq.actor(queue_name="default", actor_name="probe_remind")
def remind(address: str, delay: int = 0, delay_ms: int = 0) -> None:
    """Do nothing with arguments that are called as options elsewhere."""


@dramatiq.actor(queue_name="default", actor_name="probe_note")
def note(value: Any) -> None:
    """Do nothing with any value."""
