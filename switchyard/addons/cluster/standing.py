"""Verdict about a server that is named as one that runs alone. Every supervisor asks for it: it loads nothing else."""

from collections.abc import Mapping

from switchyard.broker.health.server import ServerFinding


def judge(info: Mapping[str, str]) -> list[ServerFinding]:
    """Return what is wrong with a server by itself, by its ``INFO``."""
    if info.get("cluster_enabled") != "1":
        return []
    return [
        ServerFinding(
            "cluster",
            "error",
            "the server is a node of a cluster, and would refuse most of the keys",
            "Write `redis+cluster://` in SWITCHYARD_BROKER_URL, or use a server that runs alone.",
        )
    ]
