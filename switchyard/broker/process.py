"""This process: processors and memory that it may use, and modules that it imports or that gevent has patched."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

# Version 1 writes a number near 2**63 where there is no limit.
NO_LIMIT_BYTES = 2**60


def usable_cpus() -> frozenset[int] | None:
    """Return the CPUs that this process may use; ``None`` where the platform pins no processes (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


@cache
def cores_here(root: Path = Path("/")) -> int:
    """Return how many processors this process may keep busy: by affinity and control groups, rounded down, at least 1.

    Read once in a process. ``root`` is the folder of ``proc`` and ``sys``.
    """
    allowed = len(usable_cpus() or ()) or os.cpu_count() or 1
    return max(1, min([allowed, *_quotas(root)]))


@cache
def memory_here(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit of all control groups in bytes; ``None`` without one. Read once in a process."""
    limits = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(folder / name)
            if limit.isdigit() and int(limit) < NO_LIMIT_BYTES:
                limits.append(int(limit))
    return min(limits, default=None)


def _quotas(root: Path) -> Iterator[int]:
    for folder in _folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) // int(period)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of all above them, in both versions.

    In a container, version 1 names a path outside of it; the container's own limits are in the mounted root.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mounted / path.lstrip("/")
        yield group
        yield from (folder for folder in group.parents if folder.is_relative_to(mounted))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def is_patched() -> bool:
    """Return whether gevent patched this process before anything else was loaded."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def once_imported(name: str, act: Callable[[], None]) -> None:
    """Call ``act`` at once if a module is loaded, else when it is, before the code that imports it goes on."""
    if name in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _EndOfImport(name, act))


class _EndOfImport(MetaPathFinder):
    """Import hook that has its module found and loaded as ever."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self._name = name
        self._act = act

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                self._act()

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
