"""``manage.py switchyard plan`` by recorded facts, and by work that is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command

from project.topology import YARD
from switchyard.broker.interface import Facilities
from switchyard.broker.stores.yard_facts import MINUTE_MS, RUN_MS, RUNS, SUCCEEDED, WAITS, bucket_of, field

# The same queues, the default one with the slots of an eighth.
NEXT = replace(YARD, pools=tuple(replace(each, slots=1) if each.name == "default" else each for each in YARD.pools))


@pytest.fixture
def record(facilities: Facilities, valkey: redis.Redis) -> None:
    """Five minutes in which 20 messages a second of 100 to 160 ms ran in ``default``."""
    now = facilities.facts.server_ms() // MINUTE_MS * MINUTE_MS
    counts = {WAITS: 1_200, SUCCEEDED: 1_200, RUNS + 5: 1_200, RUN_MS: 150_000}
    for minute in range(3, 8):
        key = facilities.records.keys.facts_bucket(bucket_of(now - minute * MINUTE_MS))
        valkey.hset(key, mapping={field("q:default", code): count for code, count in counts.items()})
    assert facilities.facts.fold(now) > 0


def planned(capsys: Any, *arguments: str) -> dict[str, Any]:
    call_command("switchyard", "plan", "--json", *arguments)
    return {pool["pool"]: pool for pool in json.loads(capsys.readouterr().out)["pools"]}


@pytest.mark.usefixtures("record")
def test_recorded_work_is_planned_and_replayed_through_another_topology(capsys: Any) -> None:
    found = planned(capsys)
    other = planned(capsys, "--topology", f"{__name__}.NEXT")

    assert list(found) == list(other) == ["default"]
    default = found["default"]
    assert (default["arrivals_per_s"], default["promise_s"]) == (20.0, 1.0)
    assert default["run_mean_s"] == pytest.approx(0.125)
    assert (default["declared"]["slots"], default["declared"]["kept"]) == (8, 1.0)
    assert 3 <= default["needed"]["slots"] <= 4
    assert (default["processes"], other["default"]["processes"]) == (1, default["needed"]["slots"])
    assert (other["default"]["declared"]["slots"], other["default"]["declared"]["kept"]) == (1, 0.0)
    assert other["default"]["memory_mib"] > default["memory_mib"]


@pytest.mark.usefixtures("record")
def test_the_table_says_what_is_declared_and_what_is_needed(capsys: Any) -> None:
    call_command("switchyard", "plan", "--minutes", "3")

    head, row, _, foot = capsys.readouterr().out.splitlines()
    assert [head.split()[0], row.split()[:2]] == ["pool", ["default", "20/s"]]
    assert foot.startswith("The busiest 3 min")


def test_without_a_record_the_command_says_what_to_give(facilities: Facilities) -> None:
    with pytest.raises(CommandError, match=r"nothing ran since 24h.*--queue, --arrivals and --duration"):
        call_command("switchyard", "plan")


def test_given_work_of_several_queues_needs_no_broker(capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        '[urgent]\narrivals = ["5/s", "1800/m"]\nduration = "p50=20ms"\n'
        '[webhook]\narrivals = "36000/h"\nduration = "p50=150ms, p95=2s"\n'
    )

    found = planned(capsys, "--given", str(file), "--minutes", "1")

    assert (found["urgent"]["arrivals_per_s"], found["webhook"]["arrivals_per_s"]) == (30.0, 10.0)
    assert found["urgent"]["needed"]["slots"] < found["webhook"]["needed"]["slots"] < 64
    assert found["webhook"]["run_mean_s"] == pytest.approx(0.5, rel=0.1)


ONE = ["--queue", "default", "--arrivals", "20/s", "--duration", "p50=80ms"]


def test_one_queue_is_planned_for_another_promise(capsys: Any) -> None:
    own, shorter = planned(capsys, *ONE), planned(capsys, *ONE, "--promise", "50ms")

    assert shorter["default"]["promise_s"] == 0.05
    assert shorter["default"]["needed"]["slots"] > own["default"]["needed"]["slots"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--queue", "default"], "go together; give all three"),
        ([*ONE[:3], "20", *ONE[4:]], "'20' is not a rate; write 20/s"),
        ([*ONE[:5], "80ms"], "not a duration; write p50=80ms,p95=400ms"),
        ([*ONE[:5], "p50=soon"], "'soon' is not a duration; write 80ms"),
        ([*ONE[:5], "p50=9s,p95=1s"], "above p95"),
        (["--queue", "mails", *ONE[2:]], "mails"),
        ([*ONE, "--topology", "project.topology.NONE"], "--topology: "),
        ([*ONE, "--topology", "project.topology.MB"], "is not a Yard"),
        (["--given", "/none.toml"], "write a table for each queue"),
        (["--since", "soon"], "'soon' is not a time"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_to_write(
    facilities: Facilities, wrong: list[str], said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("switchyard", "plan", *wrong)
