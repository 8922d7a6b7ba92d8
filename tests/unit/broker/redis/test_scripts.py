"""A process that a task has left no file descriptor returns its messages: it opens no file for that."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from switchyard.broker.redis import scripts
from switchyard.middleware import wait_for_broker


def full(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuse to open anything."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_script_that_was_not_used_before_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.script("fetch")
    scripts.source.cache_clear()
    monkeypatch.setattr(Path, "read_text", full)

    assert "redis.call" in scripts.source("queue/move")


def test_a_process_without_descriptors_refuses_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_for_broker, "PAUSE_S", 0)
    answers = iter([full, lambda: "moved"])

    assert wait_for_broker.retry_until_available(lambda: next(answers)(), job_id="1", what="retry") == "moved"
