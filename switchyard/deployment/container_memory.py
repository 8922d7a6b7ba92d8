"""Memory of all containers, for the choice of a machine, and of those that a compose file gives too little."""

from __future__ import annotations

import psutil
import yaml

from switchyard.broker.topology import Yard
from switchyard.deployment import sizes
from switchyard.deployment.rendered_files import COMPOSE_FILE, render

# Runs before the others, and ends.
FIRST = "migrate"
UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def given_mib(text: str) -> dict[str, int]:
    """Return the memory limit of each container of a compose file, by its name, in MiB; empty for another text.

    The first, which ends before the others run, is left out.
    """
    try:
        services = yaml.safe_load(text)["services"]
        limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in services.items()}
        return {name: _bytes(str(limit)) // sizes.MIB for name, limit in limits.items() if name != FIRST}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def memory_here_mib() -> int:
    """Return this machine's memory in MiB."""
    return int(psutil.virtual_memory().total // sizes.MIB)


def summary(yard: Yard) -> str:
    """Return one line: the memory of all containers at their limits, compared with this machine's."""
    found = given_mib(render("compose", yard, cores=None)[COMPOSE_FILE])
    pools = sum(mib for name, mib in found.items() if name.startswith(sizes.POOL_PREFIX))
    total, here = sum(found.values()), memory_here_mib()
    line = (
        f"memory at most: {pools:,} MiB in the pools' containers, {total - pools:,} MiB in the others, "
        f"{total:,} MiB in all; this machine has {here:,} MiB"
    )
    if total > here:
        line += ", which is less: choose a larger one, or lower memory_limit_bytes, isolated or processes of pools"
    return line


def _bytes(memory: str) -> int:
    memory = memory.lower().removesuffix("b")
    number, unit = (memory[:-1], memory[-1]) if memory[-1] in UNITS else (memory, "b")
    return int(float(number) * UNITS[unit])
