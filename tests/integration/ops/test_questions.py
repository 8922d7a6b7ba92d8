"""Alert rules and dashboard ask for metrics and labels that the yard really has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.middleware.metrics import Metrics
from switchyard.operations.metrics import BrokerMetrics
from switchyard.workers.metrics import PoolCollector

pytestmark = pytest.mark.django_db
SELECTOR = re.compile(r"(switchyard_[a-z_]+)(?:\{([^}]*)\})?")
# Of a PostgreSQL and of a broker with a limit: test_capacity.py reads them from real ones; of pools that ran for 10 s:
# tests/pager/test_pager.py.
NOT_HERE = {
    ("switchyard_pool_slots_needed", "pool"),
    ("switchyard_database_connections", ""),
    ("switchyard_database_connections_max", ""),
    ("switchyard_broker_memory_bytes", ""),
    ("switchyard_broker_memory_max_bytes", ""),
}
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")


def queries() -> list[str]:
    rules = yaml.safe_load((settings.BASE_DIR / "ops/prometheus/rules.yml").read_text())
    dashboard = json.loads((settings.BASE_DIR / "ops/grafana/dashboard.json").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return found + [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def asked() -> set[tuple[str, str]]:
    """Return each metric that is asked for with each label it is asked by."""
    pairs = set()
    for query in queries():
        for metric, selector in SELECTOR.findall(query):
            name = SUFFIX.sub("", metric)
            pairs.add((name, ""))
            pairs |= {(name, label) for label in re.findall(r"(\w+)\s*(?:=~|!~|=|!=)\s*\"", selector)}
    return pairs


def labels_of(families: Iterator[Metric]) -> set[tuple[str, str]]:
    pairs = set()
    for family in families:
        pairs.add((family.name, ""))
        pairs |= {(family.name, label) for sample in family.samples for label in sample.labels}
    return pairs


@pytest.fixture
def offered(facilities):
    report = PoolReport(
        pool="slow", host="here", pid=1, kind="processes", slots=2, busy=1, started_at=0, beat_at=0, state="up",
        restarts={"exit": 1},
    )  # fmt: skip
    metrics = Metrics(registry=CollectorRegistry())
    both = {"queue": "slow", "actor": "generate_report"}
    metrics.wait.labels(**both)
    metrics.duration.labels(**both)
    metrics.messages.labels(**both, outcome="dead")
    metrics.retries.labels(**both, exception="KeyError")
    pools = labels_of(iter(PoolCollector(Path("no folder"), report, 0).collect()))
    return labels_of(BrokerMetrics().collect()) | pools | labels_of(iter(metrics.registry.collect()))


def test_every_metric_and_label_that_is_asked_for_is_there(offered):
    pairs = asked()

    assert len(pairs) > 20
    assert pairs - offered - NOT_HERE == set()
