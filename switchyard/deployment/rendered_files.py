"""Deployment files: templates filled with the figures of the yard, and compared with the files on disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from django.template import Context, Engine

from switchyard.broker.redis import acl
from switchyard.broker.topology import Yard
from switchyard.conf import switchyard_settings
from switchyard.database_connections import RESERVED_CONNECTIONS, planned_connections
from switchyard.deployment import sizes
from switchyard.deployment.sizes import RENDERED_CORES

COMPOSE_FILE: Final = "ops/compose.yaml"
# Target -> path of each of its files -> its template.
_TEMPLATES: Final = {"compose": {COMPOSE_FILE: "compose.yaml", "ops/prometheus/prometheus.yml": "prometheus.yml"}}
TARGETS: Final = (*_TEMPLATES, "acl")


def render(target: str, yard: Yard, cores: int | None = RENDERED_CORES) -> dict[str, str]:
    """Return the text of every file of a target, by its path under the repository's root.

    Args:
        target: ``compose``, or ``acl`` for the users of the broker's server.
        cores: Processors of the machine: what ``processes="cores"`` stands for; ``None`` measures this machine's.

    Raises:
        KeyError: there is no such target.
    """
    if target == "acl":
        roles = acl.roles()
        for addon in switchyard_settings().addons:
            roles = addon.call("rights", roles, roles)
        return {"ops/users.acl": acl.render(roles)}
    # Plain text, whatever the project says of HTML and of numbers.
    engine = Engine(dirs=[str(Path(__file__).with_name("templates"))], autoescape=False)
    figures = Context(_figures(yard if cores is None else yard.with_cores(cores)), autoescape=False, use_l10n=False)
    return {path: engine.get_template(name).render(figures) for path, name in _TEMPLATES[target].items()}


def _figures(yard: Yard) -> dict[str, object]:
    return {
        "pools": [
            {
                "name": pool.name,
                "memory_mib": sizes.memory_mib(pool),
                "cpus": f"{sizes.cpus(pool):.2f}",
                "pids": sizes.pids(pool),
            }
            for pool in yard.pools
        ],
        "tmp_mib": sizes.TMP_MIB,
        "max_connections": planned_connections(yard) + RESERVED_CONNECTIONS,
    }


def differences(root: Path, rendered: Mapping[str, str]) -> list[str]:
    """Return a unified diff from the files below ``root`` to what was rendered; empty when they agree."""
    lines: list[str] = []
    for path, text in rendered.items():
        file = root / path
        found = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines += difflib.unified_diff(
            found.splitlines(), text.splitlines(), f"{path} (on disk)", f"{path} (rendered)", lineterm=""
        )
    return lines


def write(root: Path, rendered: Mapping[str, str]) -> list[str]:
    """Write the files that differ below ``root`` and return the paths written."""
    written = []
    for path, text in rendered.items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            written.append(path)
    return written
