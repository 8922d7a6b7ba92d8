"""Print by how many bytes rendering a file's thumbnail raises this process's resident memory at its peak.

Run as a process of its own: ``python -m tests.integration.images.peak_memory FILE WIDTH HEIGHT``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from apps.product.images.containers import read_facts
from apps.product.images.rendering import render
from tests.factories.pictures import encode, gradient


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
    render(content, read_facts(content), int(width), int(height))
    print(_status_bytes("VmHWM") - before_bytes)


if __name__ == "__main__":
    main(*sys.argv[1:])
