"""Settings of every container: no root, no capabilities, read-only file system, resource limits."""

from __future__ import annotations

from typing import Any


def hardened(memory_mib: int, *, cpus: float, pids: int = 256, tmp_mib: int | None = None) -> dict[str, Any]:
    """Return the keys that confine a container.

    Args:
        memory_mib: The kernel kills the container above it. Files in ``/tmp`` count as memory.
        cpus: Processors' worth of time, for example 1.5.
        pids: Most processes and threads.
        tmp_mib: Size of ``/tmp``; ``None`` is half of the memory.
    """
    return {
        "read_only": True,
        "tmpfs": [f"/tmp:size={tmp_mib or memory_mib // 2}m"],  # noqa: S108 - in the container, and its own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "deploy": {"resources": {"limits": {"cpus": f"{cpus:.2f}", "memory": f"{memory_mib}M", "pids": pids}}},
        "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}},
    }


def required(name: str) -> str:
    """Return compose's reference to a required variable: without it compose refuses to start."""
    return f"${{{name}:?set {name} in ops/production.env}}"


def healthcheck(*command: str, interval_s: int = 10, start_period_s: int = 30) -> dict[str, Any]:
    """Return a health check that runs ``command`` and reports unhealthy after three failures in a row."""
    return {
        "test": list(command),
        "interval": f"{interval_s}s",
        "timeout": "5s",
        "retries": 3,
        "start_period": f"{start_period_s}s",
    }
