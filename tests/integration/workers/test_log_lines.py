"""Real lines of supervisor, child, scheduler and web have the fields of the page, and no other."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from django.test import Client
from dramatiq import Message

from switchyard.middleware import logs
from tests.integration.workers.conftest import Bench
from tests.unit.documentation.test_reference import first_column

IN_EVERY_LINE = {"event", "level", "logger", "timestamp", "release"}
OF_JOB = {"job_id", "actor", "queue", "attempt", "request"}


@pytest.fixture
def own_logs() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def lines_of(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    for line in found:
        assert line.keys() >= IN_EVERY_LINE, line
        assert line.keys() <= first_column("docs/reference/log-lines.md"), line
    return found


def test_lines_of_supervisor_child_and_scheduler(bench: Bench) -> None:
    bench.environment["SWITCHYARD_LOG_FORMAT"] = "json"
    run = bench.start("switchyard", "run", yard="small form")
    bench.wait_for_log("pool small: ready (1")
    bench.wait_for_log("scheduler started")
    for how in ("sleep", "fail"):
        options = {"origin": {"request": "r-1"}, "max_retries": 0}
        bench.broker.enqueue(Message("urgent", "urgent_job", ("token", 0, how), {}, options))
    bench.wait_for_log('"dead"')
    bench.wait_for_log('"succeeded"')
    run.terminate()
    assert run.wait(60) == 0

    lines = lines_of(bench.log())

    assert {line["release"] for line in lines} == {"bench"}
    assert {"switchyard.jobs", "switchyard.workers", "switchyard.scheduler"} <= {line["logger"] for line in lines}
    ends = [line for line in lines if line["logger"] == "switchyard.jobs" and line["event"] in ("dead", "succeeded")]
    assert len(ends) == 2
    assert all(line.keys() >= OF_JOB and line["request"] == "r-1" for line in ends)


def test_lines_of_the_web(client: Client, own_logs: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", release="7")  # here: a test's captured stream is another one than its fixtures'

    client.get("/nowhere", headers={"X-Request-ID": "r-2"})

    [line] = [line for line in lines_of(capsys.readouterr().err) if line["logger"] == "django.request"]
    assert (line["request"], line["release"]) == ("r-2", "7")
