"""The parts that the tests run in, each a process of pytest with servers of its own.

A part is a list of patterns of files below ``tests/``; ``*`` stands for folders as well. A test file belongs to the
first part that names it.
"""

from fnmatch import fnmatch
from pathlib import Path

# Add-ons, host projects and what few changes concern: a workflow runs each in a job of its own.
OPTIONAL = {
    "rabbitmq": ("addons/rabbitmq/*",),
    "core-alone": ("addons/test_core_alone.py",),
    "cluster": ("addons/cluster/*",),
    "newest": ("integration/wheel/test_newest.py",),
    "hosts": ("integration/wheel/*", "integration/stock_dramatiq/*"),
    "images": ("*/images/*",),
    "pager": ("pager/*",),
    "containers": ("containers/*",),
    "clients": ("integration/contract/*", "integration/files/*", "integration/outbound/*"),
}
GROUPS = {"addons": ("rabbitmq", "cluster", "core-alone")}
PARTS = OPTIONAL | {
    "chaos": ("chaos/*",), "workers": ("integration/workers/*",), "browser": ("browser/*",),
    "verdicts": ("verdicts/*",), "model": ("model/*",), "broker": ("integration/broker/*", "integration/queues/*"),
    "unit": ("unit/*",), "others": ("*",),
}  # fmt: skip


def files_of(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in PARTS}
    for path in sorted((root / "tests").rglob("test_*.py")):
        below = path.relative_to(root / "tests").as_posix()
        name = next(name for name, patterns in PARTS.items() if any(fnmatch(below, pattern) for pattern in patterns))
        found[name].append(f"tests/{below}")
    return found
