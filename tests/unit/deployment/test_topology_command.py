"""``manage.py switchyard topology`` prints the yard and renders its files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from project.topology import YARD
from switchyard.deployment.rendered_files import BESIDE

YARD_ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, warnings: io.StringIO | None = None) -> str:
    output = io.StringIO()
    call_command("switchyard", "topology", *arguments, stdout=output, stderr=warnings)
    return output.getvalue()


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """The folder that files are rendered into."""
    settings.SWITCHYARD = replace(settings.SWITCHYARD, base_dir=tmp_path)
    return tmp_path


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
    assert webhook["calls"] == "customers' endpoints"
    assert (webhook["retry"]["max_retries"], webhook["retry"]["own_backoff"]) == (5, False)
    assert webhook["retry"]["delays_ms"] == [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000]
    assert webhook["retry"]["span_ms"] == [13_652_500, 27_305_000]


@pytest.mark.parametrize("target", list(BESIDE))
def test_what_rendered_files_need_beside_them_is_named_until_it_is_there(target: str, folder: Path) -> None:
    first, second = io.StringIO(), io.StringIO()

    run("render", target, warnings=first)
    for path in BESIDE[target]:
        (folder / path).mkdir(parents=True)
        assert (YARD_ROOT / path).exists()
    run("render", target, warnings=second)

    assert [path for path in BESIDE[target] if path not in first.getvalue()] == []
    assert second.getvalue() == ""


def test_check_passes_on_fresh_files_and_fails_with_a_diff_on_changed_ones(folder: Path) -> None:
    assert "ops/compose.yaml" in run("render", "compose")
    assert run("render", "compose", "--check") == ""

    with (folder / "ops/compose.yaml").open("a") as file:
        file.write("# by hand\n")

    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose"):
        run("render", "compose", "--check")


def test_pool_of_cores_shows_what_it_stands_for_and_containers_show_their_memory() -> None:
    pools = {pool["name"]: pool for pool in json.loads(run("--json"))["pools"]}
    [row] = (line for line in run().splitlines() if line.startswith("slow ") and "processes" in line)

    assert f"cores ({pools['slow']['processes']} here) x 1" in row
    assert f"{pools['slow']['memory_mib']:,}M" in row
    assert [pool["name"] for pool in pools.values() if pool["per_core"]] == ["slow"]
    assert "memory at most: " in run() and " MiB in all; this machine has " in run()


@pytest.mark.usefixtures("folder")
def test_number_of_cores_is_repeated_in_the_command_that_mends_the_files() -> None:
    run("render", "compose", "--cores", "8")

    assert run("render", "compose", "--cores", "8", "--check") == ""
    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose$"):
        run("render", "compose", "--check")
    with pytest.raises(CommandError, match=r"run: manage\.py switchyard topology render compose --cores 4$"):
        run("render", "compose", "--cores", "4", "--check")
    with pytest.raises(CommandError, match="--cores: '0' is not a number from 1"):
        run("render", "compose", "--cores", "0")
