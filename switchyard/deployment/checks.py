"""System check of the sizes that the rendered compose file gives the pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Warning

from switchyard.broker.topology import Yard
from switchyard.conf import switchyard_settings
from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import COMPOSE_FILE


def containers_hold_their_pools(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Check the compose file of this project, if it has one, on ``check --deploy``."""
    own = switchyard_settings()
    file = own.base_dir / COMPOSE_FILE
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return too_small(own.topology.with_cores(rendered_files.RENDERED_CORES), rendered_files.given_mib(text))


def too_small(yard: Yard, given_mib: Mapping[str, int]) -> list[CheckMessage]:
    """Return W008 for each pool whose container gets less memory than its children may take.

    Args:
        given_mib: Container -> its memory limit in MiB; pools without one are not judged.
    """
    given = {
        pool.name: given_mib.get(f"{rendered_files.POOL_PREFIX}{pool.name}", rendered_files.memory_mib(pool))
        for pool in yard.pools
    }
    return [
        Warning(
            f"gets {given[pool.name]:,}M in {COMPOSE_FILE}; {rendered_files.needs(pool)}",
            hint="Run `manage.py switchyard topology render compose`, or lower memory_limit_bytes, isolated or "
            "processes in the topology.",
            obj=f"pool {pool.name}",
            id="switchyard.W008",
        )
        for pool in yard.pools
        if given[pool.name] < rendered_files.memory_mib(pool)
    ]
