"""A yard lists its lanes, pools and retries, refuses invalid declarations, and counts the cores and memory it has."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from project.topology import YARD
from switchyard.broker.errors import InvalidDeclaration
from switchyard.broker.keys import Keys
from switchyard.broker.process import cores_here, memory_here
from switchyard.broker.topology import SUPERVISOR_BYTES, Pool, Queue, RetryPolicy, Yard

ROOT = Path(__file__).resolve().parents[3]


def test_every_lane_of_this_yard_is_served_by_exactly_one_pool_and_no_dead_list_by_any():
    assert {lane: len(YARD.pools_of(lane)) for lane in YARD.lanes} == dict.fromkeys(YARD.lanes, 1)
    assert all(not YARD.pools_of(queue.dead_list) for queue in YARD.queues)
    assert not any(lane.endswith("-dead") for lane in YARD.lanes)


def test_retry_lanes_that_no_pool_names_are_shared():
    assert [pool.name for pool in YARD.pools_of("webhook-retry")] == ["webhook-retry"]
    assert [pool.name for pool in YARD.pools_of("images-retry")] == ["images-retry"]
    assert [pool.name for pool in YARD.pools_of("slow-retry")] == ["retries"]
    assert "webhook-retry" not in YARD.served_by(YARD.pool("retries"))


QUEUE: dict[str, Any] = {"name": "work", "objective_ms": None, "soft_limit_ms": 1_000, "hard_limit_ms": 2_000}
POOL: dict[str, Any] = {"name": "work", "kind": "threads", "queues": ("work",), "processes": 1, "slots": 1}
WORK = Queue(**QUEUE)


# By what the refusal names: how it is made, and options with values that cannot be used.
REFUSED: dict[str, tuple[Any, list[tuple[str, Any]]]] = {
    "retry policy": (RetryPolicy, [
        ("max_retries", "5"),
        ("max_retries", -1),
        ("max_retries", True),
        ("max_retries", None),
        ("base_ms", -1),
        ("base_ms", 1.5),
        ("cap_ms", 999),
        ("cap_ms", "300000"),
        ("cap_ms", 10**15),
        ("backoff", 5),
        ("backoff", lambda: 5),
        ("backoff", lambda retry, error: 5),
    ]),
    "queue work": (lambda **changed: Queue(**QUEUE | changed), [
        ("objective_ms", 0),
        ("objective_ms", "80"),
        ("done_objective_ms", 0),
        ("done_objective_ms", 1.5),
        ("soft_limit_ms", 0),
        ("soft_limit_ms", None),
        ("hard_limit_ms", 1_000),
        ("hard_limit_ms", 2_000.5),
        ("retry", {"max_retries": 3}),
        ("retry", 3),
        ("max_depth", 0),
        ("max_depth", -1),
        ("max_depth", True),
    ]),
    "pool work": (lambda **changed: Pool(**POOL | changed), [
        ("kind", "fibers"),
        ("kind", ["threads"]),
        ("queues", "work"),
        ("queues", ["work"]),
        ("queues", ("work", "work")),
        ("queues", (WORK,)),
        ("processes", 0),
        ("processes", "core"),
        ("processes", None),
        ("isolated", 0),
        ("cores", 0),
        ("cores", "2"),
        ("slots", 0),
        ("slots", True),
        ("slots", "4"),
        ("prefetch", 0),
        ("nice", -5),
        ("nice", 20),
        ("cpus", (0, 0)),
        ("cpus", (-1,)),
        ("cpus", 2),
        ("database_connections", 0),
        ("shared_retries", "yes"),
        ("recycle_after", 0),
        ("recycle_above_bytes", -1),
        ("memory_limit_bytes", 1.5),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("named", "option", "value"), [(named, *option) for named, (_, options) in REFUSED.items() for option in options]
)
def test_an_option_that_cannot_be_used_is_refused_by_name_when_it_is_declared(named, option, value):
    with pytest.raises(InvalidDeclaration, match=rf"^{named}: {option} is .*; write "):
        REFUSED[named][0](**{option: value})


@pytest.mark.parametrize("name", ["", "two words", 7, None, "../up"])
def test_a_pool_name_that_cannot_name_a_folder_is_refused(name):
    with pytest.raises(InvalidDeclaration, match=r"^pool: name is .*; write 1 to 64 of"):
        Pool(**POOL | {"name": name})


@pytest.mark.parametrize(
    ("queues", "pools", "fact"),
    [
        ((WORK, WORK), (), "queue work: name is 'work'; rename all but one"),
        ((WORK,), (Pool(**POOL), Pool(**POOL)), "pool work: name is 'work'; rename all but one"),
        ([WORK], (), "yard: queues is .*; write a tuple of Queue"),
        (("work",), (), "yard: queues is .*; write a tuple of Queue"),
        ((WORK,), (WORK,), "yard: pools is .*; write a tuple of Pool"),
    ],
)
def test_a_yard_of_anything_but_queues_and_pools_with_names_of_their_own_is_refused(queues, pools, fact):
    with pytest.raises(InvalidDeclaration, match=f"^{fact}"):
        Yard(queues, pools)


def test_a_topology_that_cannot_be_used_stops_the_start_with_78(tmp_path):
    declared = "from switchyard.broker.topology import *\n"
    declared += "YARD = Yard((), (Pool('mail', 'threads', ('mail',), 1, 1, nice=20),))\n"
    (tmp_path / "wrong_topology.py").write_text(declared)
    start = "import project.config\nproject.config.TOPOLOGY = 'wrong_topology.YARD'\nimport project.settings"

    done = subprocess.run(
        [sys.executable, "-c", start], env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

    assert "switchyard: refused to start: " in done.stderr
    assert "pool mail: nice is 20; write a number from 0 to 19" in done.stderr
    assert done.returncode == 78


@pytest.mark.parametrize(
    "name",
    [
        *("a:b", "__acks__:x", "", "A", "x" * 65, "x" * 10_000, "a\0", "a b", "ä", "a{b}", "a\n", "bodies", "token"),
        "refused",
    ],
)
def test_a_hostile_queue_name_is_refused_when_it_is_declared(name):
    with pytest.raises(InvalidDeclaration, match="; use 1 to 64"):
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)


@given(st.text(alphabet="abcz09_.-:{}/ é\0\n") | st.text())
def test_a_name_is_taken_only_if_its_keys_are_its_own(name):
    try:
        Queue(name, objective_ms=None, soft_limit_ms=1, hard_limit_ms=2)
    except InvalidDeclaration:
        event("refused")
        return
    event("taken")
    keys = Keys("p").queue(name).all_keys()
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(f"p:{{{name}}}:") and key.count("{") == key.count("}") == 1 for key in keys)


MB = 1_000_000
SUMS_QUEUE = Queue("sums", objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000)
SUMS = Pool("sums", "processes", ("sums",), processes="cores", slots=1, isolated=2, memory_limit_bytes=100 * MB)
FIXED = Pool("retries", "threads", (), processes=3, slots=2, shared_retries=True)


@pytest.mark.parametrize(
    ("cores", "memory_bytes", "children"),
    [
        (8, None, 8),
        (8, SUPERVISOR_BYTES + 7 * 100 * MB, 4),  # one successor and two isolated ones beside them
        (8, SUPERVISOR_BYTES + 7 * 100 * MB - 1, 3),
        (2, 10**12, 2),
        (8, 10 * MB, 1),
    ],
)
def test_there_are_as_many_children_as_cores_and_memory_carry_and_at_least_one(cores, memory_bytes, children):
    assert SUMS.children_on(cores, memory_bytes) == children


def test_pool_of_cores_is_resolved_where_it_runs_and_a_pinned_one_has_no_more_children_than_cpus(monkeypatch):
    monkeypatch.setattr("switchyard.broker.topology.cores_here", lambda: 6)
    monkeypatch.setattr("switchyard.broker.topology.memory_here", lambda: None)

    assert (SUMS.children, SUMS.total_slots, SUMS.most_running, SUMS.most_children) == (6, 6, 9, 9)
    assert replace(SUMS, cpus=(2, 3)).children_on(8, None) == 2


def test_yard_on_a_number_of_cores_resolves_only_the_pools_of_cores():
    yard = Yard((SUMS_QUEUE,), (SUMS, FIXED)).with_cores(5)

    assert [pool.children for pool in yard.pools] == [5, 3]
    assert yard.pools[0].per_core and yard.pools[0].most_memory_bytes == SUPERVISOR_BYTES + 8 * 100 * MB
    assert yard.pools[1] is FIXED and FIXED.most_memory_bytes is None


def test_kind_decides_how_many_isolated_children_a_pool_may_have_that_says_nothing():
    assert [replace(FIXED, kind=kind).most_isolated for kind in ("threads", "processes", "gevent")] == [4, 4, 2]


HOUR = 3_600_000


def test_the_default_lasts_for_hours_and_named_delays_say_how_often_and_when():
    policy = RetryPolicy()

    assert (policy.retries, policy.longest_ms(1), policy.span_ms()) == (12, 5_000, (6_157_500, 12_315_000))

    policy = RetryPolicy(delays_ms=(5_000, 300_000))

    assert policy.retries == 2
    assert [policy.longest_ms(retry) for retry in (1, 2, 3)] == [5_000, 300_000, 300_000]
    assert (policy.span_ms(), policy.span_ms(retries=3)) == ((152_500, 305_000), (302_500, 605_000))
    assert policy.span_ms(retries=0) == (0, 0)


def test_a_function_counts_as_it_answers_and_a_failing_one_as_the_policys_delays():
    policy = RetryPolicy(max_retries=3, base_ms=1_000, backoff=lambda retry: retry * 10)

    assert policy.span_ms() == (60, 60)
    assert policy.span_ms(backoff=lambda retry: 5) == (15, 15)
    assert RetryPolicy(max_retries=2, base_ms=1_000).span_ms(backoff=lambda retry: 1 // 0) == (1_500, 3_000)


@pytest.mark.parametrize("value", [5_000, [5_000], (-1,), (1.5,), ("5000",), (True,), (10**15,), None])
def test_delays_that_cannot_be_used_are_refused(value):
    with pytest.raises(InvalidDeclaration, match=r"delays_ms is .* one for each retry, such as"):
        RetryPolicy(delays_ms=value)


@pytest.mark.parametrize(
    ("option", "value"), [("max_retries", 3), ("base_ms", 1_000), ("cap_ms", HOUR * 2), ("backoff", lambda retry: 5)]
)
def test_what_named_delays_already_say_is_refused_beside_them(option, value):
    with pytest.raises(InvalidDeclaration, match=rf"{option} is .*leave it out: delays_ms already says"):
        RetryPolicy(delays_ms=(5_000, 300_000), **{option: value})


def test_what_a_queue_calls_is_a_text_and_the_speed_of_a_yard_a_number():
    with pytest.raises(InvalidDeclaration, match="queue mail: calls is True"):
        Queue("mail", 1_000, 1_000, 2_000, calls=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidDeclaration, match="yard: retry_speed is 0"):
        Yard((), (), retry_speed=0)


@pytest.fixture(autouse=True)
def sixteen_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def machine(root: Path, **files: str) -> Path:
    """Write files below ``root``; ``__`` in a name is a slash."""
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("rubbish", 16), ("", 16)],
)
def test_quota_of_version_2_is_rounded_down_and_at_least_one(quota, cores, tmp_path):
    assert cores_here(machine(tmp_path, proc__self__cgroup="0::/", sys__fs__cgroup__cpu_dot_max=quota)) == cores


def test_lowest_quota_of_all_groups_above_counts(tmp_path):
    root = machine(
        tmp_path, proc__self__cgroup="0::/yard/pool", sys__fs__cgroup__yard__cpu_dot_max="300000 100000",
        sys__fs__cgroup__yard__pool__cpu_dot_max="max 100000", sys__fs__cgroup__yard__memory_dot_max="2000000",
        sys__fs__cgroup__yard__pool__memory_dot_max="max",
    )  # fmt: skip

    assert (cores_here(root), memory_here(root)) == (3, 2_000_000)


def test_version_1_in_a_container_is_read_at_its_mounted_root(tmp_path):
    root = machine(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="200000",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="1000000",
    )

    assert (cores_here(root), memory_here(root)) == (2, 1_000_000)


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert (cores_here(tmp_path), memory_here(tmp_path)) == (16, None)
