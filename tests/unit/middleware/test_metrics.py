"""What is counted is counted under the labels it says, in every process by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from middleware.metrics import Children

FORKED = """
import os
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.multiprocess import MultiProcessCollector
from middleware.metrics import Children

children = Children(Counter("runs", "Runs.", ("actor",), registry=CollectorRegistry()))
children["mail",].inc()
if os.fork() == 0:
    children["mail",].inc(2)
    os._exit(0)
os.wait()
children["mail",].inc(4)
collected = CollectorRegistry()
MultiProcessCollector(collected)
print(collected.get_sample_value("runs_total", {"actor": "mail"}))
"""


def test_a_child_is_the_one_that_labels_name() -> None:
    metric = Counter("runs", "Runs.", ("queue", "actor"), registry=CollectorRegistry())
    children = Children(metric)

    children["bulk", "mail"].inc()
    children["bulk", "mail"].inc()

    assert children["bulk", "mail"] is metric.labels("bulk", "mail")
    assert children["bulk", "report"] is not children["bulk", "mail"]


def test_a_forked_process_counts_in_a_file_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.strip() == "7.0"
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
