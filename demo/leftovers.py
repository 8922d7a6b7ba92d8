"""Processes that nobody waits for any more. They come to the demo, which ends them before it ends itself."""

from __future__ import annotations

import contextlib

import psutil

PATIENCE_S = 2.0


def end_leftovers() -> list[str]:
    """Wait briefly for the descendants that still run, kill those that stay, and return their names."""
    _, stubborn = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=PATIENCE_S)
    names = []
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
    psutil.wait_procs(stubborn, timeout=PATIENCE_S)
    return names
