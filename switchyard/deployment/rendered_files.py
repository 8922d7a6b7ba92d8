"""Deployment files: templates filled with the figures of the yard, and compared with the files on disk."""

import difflib
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from django.core.checks import CheckMessage, Warning
from django.template import Context, Engine

from switchyard.broker.redis import acl
from switchyard.broker.topology import SUPERVISOR_BYTES, Pool, PoolKind, Yard
from switchyard.conf import switchyard_settings
from switchyard.database import RESERVED_CONNECTIONS, planned_connections

POOL_PREFIX = "pool-"  # of a pool's container
MIB = 2**20
# For a child without ``memory_limit_bytes``.
CHILD_MIB: dict[PoolKind, int] = {"threads": 320, "gevent": 384, "processes": 768}
TMP_MIB = 256  # in memory, for files of tasks, such as an export while it is written
RENDERED_CORES = 2  # that ``processes="cores"`` stands for in rendered files, which do not depend on the machine
MOST_REPLICAS = 4  # that an autoscaler may start of a pool; each opens its database connections again
METRICS_PORT = 9191  # of the first pool of a machine without containers; the others follow


def memory_mib(pool: Pool) -> int:
    """Return the memory that a pool's container needs when each child is at its limit, with the files in ``/tmp``."""
    guessed_bytes = SUPERVISOR_BYTES + pool.most_children * CHILD_MIB[pool.kind] * MIB
    return -(-(pool.most_memory_bytes or guessed_bytes) // MIB) + TMP_MIB


def requests(pool: Pool) -> tuple[str, int]:
    """Return the processors (as Kubernetes writes them) and the MiB that a pool's pod is placed by.

    A pool of processes computes: it gets what it is limited to, whole processors, to which a kubelet with the static
    CPU policy pins it. Threads and greenlets wait for most of their time, and seldom reach their limits at once.
    """
    if pool.kind == "processes":
        return str(pool.children), memory_mib(pool)
    child_bytes = pool.memory_limit_bytes or CHILD_MIB[pool.kind] * MIB
    return f"{250 * pool.children}m", -(-(SUPERVISOR_BYTES + pool.children * child_bytes) // MIB)


COMPOSE_FILE: Final = "ops/compose.yaml"
_KUBERNETES: Final = {
    "base": ("yard", "pools", "network"),
    "monitoring": ("monitoring",),
    "jobs": ("jobs",),
    "hpa": ("hpa", "adapter"),
    "keda": ("keda",),
}
# Target -> path of each of its files -> its template.
_TEMPLATES: Final = {
    "compose": {
        COMPOSE_FILE: "compose.yaml",
        "ops/prometheus/prometheus.yml": "prometheus.yml",
        "ops/prometheus/alertmanager.yml": "alertmanager.yml",
    },
    "kubernetes": {
        f"ops/kubernetes/{folder}/{name}.yaml": f"kubernetes/{template}.yaml"
        for folder, names in _KUBERNETES.items()
        for name, template in (("kustomization", f"kustomization-{folder}"), *((name, name) for name in names))
    },
}
TARGETS: Final = (*_TEMPLATES, "systemd", "acl")
# Target -> what its files need beside them: files of Switchyard's repository, which a wheel does not have.
BESIDE: Final = {
    "compose": (
        *("ops/Dockerfile", "ops/probe.py", "ops/production.env.example", "ops/prometheus/rules.yml"),
        *("ops/grafana/dashboard.json", "ops/grafana/provisioning"),
    ),
    "kubernetes": ("ops/Dockerfile", "ops/kubernetes/production"),
}


# Values of a deployment that no topology says. Secrets are files in the folder of that name: slack_url, pagerduty_key.
VALUES: Final = {
    "web": "web:8000",
    "metrics_token_file": "/tmp/metrics_token",  # noqa: S108  in the container's memory
    "alertmanager": "alertmanager:9093",
    "secrets": "/tmp/secrets",  # noqa: S108  likewise
    "pagerduty_url": "https://events.pagerduty.com/v2/enqueue",
    "mail_server": "mail.example.com:587",
    "mail_from": "switchyard@example.com",
    "mail_to": "oncall@example.com",
    "mail_tls": "true",
    "ticket_url": "https://tickets.example.com/hooks/switchyard",
    "user": "switchyard",
    "root": "/srv/switchyard",
    "python": "/srv/switchyard/.venv/bin/python",
    "environment_file": "/etc/switchyard/switchyard.env",
}


def render(
    target: str, yard: Yard, cores: int | None = RENDERED_CORES, values: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the text of every file of a target, by its path under the repository's root.

    Args:
        target: ``compose``, ``kubernetes``, ``systemd``, or ``acl`` for the users of the broker's server.
        cores: Processors of the machine: what ``processes="cores"`` stands for; ``None`` measures this machine's.
        values: Those of :data:`VALUES` that are others here.

    Raises:
        KeyError: there is no such target.
    """
    if target == "acl":
        roles = acl.roles(yard.keys.queue(queue.name) for queue in yard.queues)
        for addon in switchyard_settings().addons:
            roles = addon.call("rights", roles, roles)
        return {"ops/users.acl": acl.render(roles)}
    # Plain text, whatever the project says of HTML and of numbers.
    engine = Engine(dirs=[str(Path(__file__).with_name("templates"))], autoescape=False)
    figures = _figures(yard if cores is None else yard.with_cores(cores)) | {"values": VALUES | dict(values or {})}
    filled = Context(figures, autoescape=False, use_l10n=False)
    if target == "systemd":
        return _units(engine, filled)
    return {path: engine.get_template(name).render(filled) for path, name in _TEMPLATES[target].items()}


def _units(engine: Engine, filled: Context) -> dict[str, str]:
    """Return a unit for each process of the yard, and the target that starts all of them."""
    web = {"name": "web", "command": "runweb --host 127.0.0.1 --port 8000"}
    units = [
        {"name": f"switchyard-{part['name']}", "title": part["name"], "command": part["command"], "stop_s": 30}
        for part in (web, *filled["singletons"])
    ]
    units += [
        {
            "name": f"switchyard-{pool['component']}",
            "title": f"pool {pool['name']}",
            "command": f"runpool {pool['name']} --metrics-port {METRICS_PORT + number}",
            "stop_s": 75,
            "memory_mib": pool["memory_mib"],
            "tasks": pool["pids"],
        }
        for number, pool in enumerate(filled["pools"])
    ]
    template = engine.get_template("systemd/unit.service")
    with filled.push(units=units):
        target = engine.get_template("systemd/switchyard.target").render(filled)
    rendered: dict[str, str] = {"ops/systemd/switchyard.target": target}
    for unit in units:
        with filled.push(unit=unit):
            rendered[f"ops/systemd/{unit['name']}.service"] = template.render(filled)
    return rendered


def _figures(yard: Yard) -> dict[str, object]:
    return {
        "pools": [
            {
                "name": pool.name,
                # Kubernetes takes names of hosts alone.
                "component": f"pool-{re.sub('[^a-z0-9]+', '-', pool.name.lower()).strip('-')}"[:63],
                "memory_mib": memory_mib(pool),
                "cpus": f"{pool.children:.2f}",  # a child runs Python on one at a time
                # Processes and threads.
                "pids": 64 + (pool.children + pool.most_isolated) * 32 + 2 * (pool.children + 1) * pool.slots,
                "cpu_request": requests(pool)[0],
                "cpu_limit": pool.children,
                "memory_request_mib": requests(pool)[1],
                "slots": pool.total_slots,
                "connections": pool.most_connections,
            }
            for pool in yard.pools
        ],
        "singletons": [
            {"name": "scheduler", "command": "runscheduler", "memory_mib": 256},
            {"name": "history", "command": "runhistory", "memory_mib": 384},
        ],
        "jobs": [
            {"name": "check-backlog", "command": "switchyard, check_backlog", "retries": 0},
            {"name": "migrate", "command": "migrate, --noinput", "retries": 3},
        ],
        "most_replicas": MOST_REPLICAS,
        "tmp_mib": TMP_MIB,
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


FIRST = "migrate"  # it ends before the others run
UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def given_mib(text: str) -> dict[str, int]:
    """Return the memory limit of each container of a compose file but the first, in MiB; empty for another text."""
    import yaml  # no other system check needs it

    try:
        services = yaml.safe_load(text)["services"]
        limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in services.items()}
        return {name: _bytes(str(limit)) // MIB for name, limit in limits.items() if name != FIRST}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def memory_here_mib() -> int:
    """Return this machine's memory in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB


def summary(yard: Yard) -> str:
    """Return one line: the memory of all containers at their limits, compared with this machine's."""
    found = given_mib(render("compose", yard, cores=None)[COMPOSE_FILE])
    pools = sum(mib for name, mib in found.items() if name.startswith(POOL_PREFIX))
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


def too_small(yard: Yard, given_mib: Mapping[str, int]) -> list[CheckMessage]:
    """Return W008 for each pool whose container, of those that are given a limit in MiB, gets less than it may take."""
    lower = "lower memory_limit_bytes, isolated or processes in the topology"
    hint = f"Run `manage.py switchyard topology render compose`, or {lower}."
    found: list[CheckMessage] = []
    for pool in yard.pools:
        given, needed = given_mib.get(f"{POOL_PREFIX}{pool.name}", math.inf), memory_mib(pool)
        if given < needed:
            child = f" of up to {pool.memory_limit_bytes / 1e6:,.0f} MB" if pool.memory_limit_bytes else ""
            fact = (
                f"gets {given:,}M in {COMPOSE_FILE}; {pool.children} children, a successor and {pool.most_isolated} "
                f"for isolated messages{child}, beside their supervisor and {TMP_MIB}M for /tmp, need {needed:,}M"
            )
            found.append(Warning(fact, hint, f"pool {pool.name}", "switchyard.W008"))
    return found
