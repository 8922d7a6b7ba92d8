"""A lock on a cluster has one holder while its slot moves, and when its master dies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.addons.cluster.nodes import ClusterUnderTest
from tests.chaos.held_locks import BUSY, HELD, held_locks


def test_a_lock_has_one_holder_while_its_slot_moves(cluster: ClusterUnderTest, run_worker: Any) -> None:
    cluster.flush()
    with held_locks(cluster.url, run_worker) as locks:
        for name in (HELD, BUSY):
            key = locks.broker.keys.task_lock(name)[0]
            locks.wait_for_more()
            home = cluster.owner(key)
            cluster.move_one_by_one(key, cluster.another(home))
            locks.wait_for_more()
            cluster.move_at_once(key, home)
        locks.wait_for_more()
        locks.check_task()

    locks.check_turns()


def test_a_lock_has_one_holder_when_its_master_dies(tmp_path: Path, run_worker: Any) -> None:
    with ClusterUnderTest(tmp_path / "cluster", replicas=1) as cluster, held_locks(cluster.url, run_worker) as locks:
        killed_s = []
        for name in (BUSY, HELD):
            locks.wait_for_more()
            killed_s.append(time.monotonic())
            cluster.owner(locks.broker.keys.task_lock(name)[0]).kill()
            locks.wait_for_more()
        locks.check_task()

    locks.check_turns(*killed_s)
