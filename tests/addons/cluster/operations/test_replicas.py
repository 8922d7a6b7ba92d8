"""Doctor names each master of a cluster that nothing could replace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding
from switchyard.operations.findings.servers import GROUP, look_at_servers
from tests.addons.cluster.nodes import ClusterUnderTest
from tests.waiting import wait_for


def replica_findings() -> list[Finding]:
    return [found for found in run_checks(GROUP, look_at_servers, 20.0) if found.code == "no_replica"]


def test_masters_that_no_replica_follows_are_named(tmp_path: Path, configure: Callable[..., None]) -> None:
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster:
        configure(broker_url=cluster.url)
        assert replica_findings() == []

        lone, kept, another = cluster.masters
        cluster.replica_of(lone).kill()
        [one] = wait_for(replica_findings)
        cluster.replica_of(another).kill()
        [two] = wait_for(lambda: [found for found in replica_findings() if another.address in found.seen])

    assert (one.severity, one.group) == ("warning", "broker")
    assert lone.address in one.seen and kept.address not in one.seen
    assert lone.address in two.seen and kept.address not in two.seen
    assert "its queues wait" in one.seen and "the queues of each wait" in two.seen
    assert "--cluster-slave" in two.next
