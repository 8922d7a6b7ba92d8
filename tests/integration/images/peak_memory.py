"""Print by how many bytes rendering a file's thumbnail raises this process's resident memory at its peak.

It runs within the memory limit of the pool ``images``, and fails where that is too low.

Run as a process of its own: ``python -m tests.integration.images.peak_memory FILE WIDTH HEIGHT``.
"""

import resource
import sys
from pathlib import Path

from apps.images.containers import read_facts
from apps.images.rendering import render
from project.topology import YARD
from tests.factories.pictures import encode, gradient

IDLE_CHILD_BYTES = 121_000_000


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [line] = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def main(path: str, width: str, height: str) -> None:
    """Render once with small pictures, so that every library is loaded, and then the file's."""
    content = Path(path).read_bytes()
    for format_name in ("PNG", "JPEG", "WEBP", "GIF"):
        small = encode(gradient(64, 64), format_name)
        render(small, read_facts(small), 10, 10)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before_bytes = _status_bytes("VmRSS")
    # As much may be allocated as a child of the shipped pool has left, with the picture's file and a copy of it.
    limit_bytes = YARD.pool("images").memory_limit_bytes or 0
    left_bytes = limit_bytes - IDLE_CHILD_BYTES - 2 * len(content)
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + left_bytes,) * 2)
    render(content, read_facts(content), int(width), int(height))
    print(_status_bytes("VmHWM") - before_bytes)


if __name__ == "__main__":
    main(*sys.argv[1:])
