"""Cores and memory are those of affinity and control groups, in both versions of these."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchyard.broker.process import cores_here, memory_here


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
def test_quota_of_version_2_is_rounded_down_and_at_least_one(quota: str, cores: int, tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/", sys__fs__cgroup__cpu_dot_max=quota)

    assert cores_here(root) == cores


def test_lowest_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path, proc__self__cgroup="0::/yard/pool", sys__fs__cgroup__yard__cpu_dot_max="300000 100000",
        sys__fs__cgroup__yard__pool__cpu_dot_max="max 100000", sys__fs__cgroup__yard__memory_dot_max="2000000",
        sys__fs__cgroup__yard__pool__memory_dot_max="max",
    )  # fmt: skip

    assert (cores_here(root), memory_here(root)) == (3, 2_000_000)


def test_version_1_in_a_container_is_read_at_its_mounted_root(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="200000",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="1000000",
    )

    assert (cores_here(root), memory_here(root)) == (2, 1_000_000)


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert (cores_here(tmp_path), memory_here(tmp_path)) == (16, None)
