"""``manage.py topology`` prints the yard and renders its files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from project.topology import YARD


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("topology", *arguments, stdout=output)
    return output.getvalue()


def test_table_shows_every_queue_and_every_pool() -> None:
    lines = run().splitlines()

    assert [line.split()[0] for line in lines if line][2:] != []
    for name in [queue.name for queue in YARD.queues] + [pool.name for pool in YARD.pools]:
        assert any(line.startswith(f"{name} ") for line in lines), name


def test_json_tells_what_a_queue_promises_and_who_serves_it() -> None:
    queues = {queue["name"]: queue for queue in json.loads(run("--json"))["queues"]}

    webhook = queues["webhook"]
    assert webhook["objective_ms"] == 1_000
    assert webhook["pools"] == ["webhook"]
    assert webhook["retry_pools"] == ["webhook-retry"]
    assert webhook["dead_list"] == "webhook-dead"
    assert webhook["retry"] == {"max_retries": 5, "base_ms": 1_000, "cap_ms": 300_000, "own_backoff": False}


def test_check_passes_on_fresh_files_and_fails_with_a_diff_on_changed_ones(tmp_path: Path, settings: Settings) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, base_dir=tmp_path)
    assert "ops/compose.yaml" in run("render", "compose")
    assert run("render", "compose", "--check") == ""

    with (tmp_path / "ops/compose.yaml").open("a") as file:
        file.write("# by hand\n")

    with pytest.raises(CommandError, match=r"run: manage\.py topology render compose"):
        run("render", "compose", "--check")


def test_target_that_is_not_offered_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice: 'kubernetes'"):
        run("render", "kubernetes")
