"""Metrics are counted under their declared labels, in each process separately."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from prometheus_client import CollectorRegistry, Counter, Histogram

from switchyard.middleware import metrics
from switchyard.middleware.metrics import BUCKETS_S, OWNER_ATTEMPTS, OWNER_SECONDS, Children, Metrics, observe
from switchyard.middleware.outcomes import Outcome, decide

FORKED = """
import os
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.multiprocess import MultiProcessCollector
from switchyard.middleware.metrics import Children

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
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "7.0"
    assert len(list(tmp_path.glob("counter_*.db"))) == 2


def test_observations_that_are_added_together_come_out_as_if_each_had_been_observed() -> None:
    registry = CollectorRegistry()
    one_by_one, together = (
        Histogram(name, "Waits.", ("actor",), buckets=BUCKETS_S, registry=registry) for name in ("single", "folded")
    )
    values = (0.0, *BUCKETS_S, *(bound * 1.01 for bound in BUCKETS_S), 1e6)

    for actor in ("mail", "report"):
        for value in values:
            one_by_one.labels(actor).observe(value)
    observe(Children(together), {("mail",): values, ("report",): values})

    single, folded = (
        {(sample.name.partition("_")[2], *sample.labels.values()): sample.value for sample in family.samples}
        for family in registry.collect()
    )
    for of in (single, folded):
        for created in [name for name in of if name[0] == "created"]:
            del of[created]
    assert folded == pytest.approx(single)
    assert len(folded) == 2 * (len(BUCKETS_S) + 3)


def test_the_product_of_all_labels_is_bounded_and_what_is_over_it_counts_as_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "MOST_ACTORS", 20)
    monkeypatch.setattr(metrics, "MOST_EXCEPTIONS", 30)
    middleware, broker = Metrics(), StubBroker(middleware=[])
    lanes, actors, exceptions = ("bulk", "bulk-retry", "mail"), 15, 10
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(exceptions)]

    for lane in lanes:
        for actor in range(actors):
            for kind in kinds:
                message = MessageProxy(Message(lane, f"actor{actor}", (), {}, {}))
                middleware.before_process_message(broker, message)
                decide(message, Outcome("retried", exception=kind()))
                middleware.after_process_message(broker, message, exception=kind())

    [family] = [each for each in middleware.registry.collect() if each.name == "switchyard_retries"]
    series = [sample for sample in family.samples if sample.name == "switchyard_retries_total"]
    pairs = {(sample.labels["queue"], sample.labels["actor"]) for sample in series}
    assert len(pairs) <= 20 + len(lanes)
    assert len(series) <= 30 + 20 + len(lanes)
    assert sum(sample.value for sample in series) == len(lanes) * actors * exceptions


def test_attempts_and_run_time_are_counted_by_owner_whatever_its_text_is() -> None:
    middleware, broker = Metrics(), StubBroker(middleware=[])
    for owner in ("user:7", "user:7", "bad\x00\ud800", "", None):
        message = MessageProxy(Message("mail", "send", (), {}, {} if owner is None else {"owner": owner}))
        middleware.before_process_message(broker, message)
        middleware.after_process_message(broker, message)

    samples = [sample for family in middleware.registry.collect() for sample in family.samples]
    owners = {each.labels["owner"]: each.value for each in samples if each.name == f"{OWNER_ATTEMPTS}_total"}
    assert owners == {"user:7": 2, "bad\\x00\\ud800": 1}
    assert {each.labels["owner"] for each in samples if each.name == f"{OWNER_SECONDS}_total"} == owners.keys()
