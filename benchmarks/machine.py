"""Origin of a result: commit, machine and versions."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

from switchyard.embedded.server import find_binary


def describe() -> dict[str, str]:
    """Return commit, time, processor, cores, kernel, Python and server."""
    return {
        "commit": _output("git", "describe", "--always", "--dirty"),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "server": _output(str(find_binary()), "--version"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
