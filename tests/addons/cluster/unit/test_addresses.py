"""Addresses of a cluster: what is refused, and what the rest of the library does with one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dramatiq.worker
import pytest

from switchyard.broker.health.server import facts_of, judge
from switchyard.conf import switchyard_settings
from switchyard.operations.findings import examine
from switchyard.operations.findings.finding import Finding
from switchyard.setting_values import InvalidSetting
from switchyard.workers.child import main
from tests.unit.operations.findings.test_examine import ADMIN, CHANGE, COMMAND
from tests.unit.operations.findings.test_examine import installed as installed
from tests.unit.project.test_config import GOOD, load

CLUSTER = "redis+cluster://user:secret@10.0.0.1:6379,10.0.0.2:6379"


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("redis+cluster://user:pass/word@a:1,b:2", "has a node whose port is not a number"),
        ("redis+cluster://127.0.0.1:1,b:2", "b is reached without a password"),
        ("redis+cluster://user:word@a:1,b:2/3", "names database 3"),
        (
            "redis+cluster://user:word@a:1,b:2?ssl_ca_certs=/ca.pem",
            "ssl_ca_certs, which is for TLS; begin the address with rediss+cluster://",
        ),
    ],
)
def test_what_cannot_or_must_not_be_is_refused(value: str, fact: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load({**GOOD, "SWITCHYARD_BROKER_URL": value})

    assert fact in str(refused.value)


def test_options_that_the_client_knows_are_taken() -> None:
    url = "rediss+cluster://u:p@a:1,b:2?ssl_check_hostname=no&health_check_interval=10"

    load({**GOOD, "DJANGO_DEBUG": "1", "SWITCHYARD_BROKER_URL": url})


@pytest.mark.parametrize("url", ["redis+cluster://one:6379,two:6379", "REDISS+CLUSTER://one:6379,two:6379"])
def test_consumers_start_again_soon(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(switchyard_settings(), broker_url=url)
    monkeypatch.setattr(main, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 3.0)

    main.restart_soon()

    assert dramatiq.worker.CONSUMER_RESTART_DELAY_SECS == main.FAILOVER_PAUSE_S


def test_a_node_that_is_addressed_as_if_it_were_alone_is_refused() -> None:
    facts = facts_of(b"redis_version:7.2.4\r\ncluster_enabled:1\r\n", [])

    assert [(item.code, item.severity) for item in judge(facts, production=False)] == [("cluster", "error")]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("node 10.0.0.2:6380: it blocks", f"valkey-cli -h 10.0.0.2 -p 6380 {ADMIN} {CHANGE}"),
        ("a lock is left", f"valkey-cli -c -h 10.0.0.1 -p 6379 {ADMIN} {CHANGE}"),
    ],
)
def test_a_command_names_its_node(seen: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        examine,
        "switchyard_settings",
        lambda: SimpleNamespace(broker_url=CLUSTER, server_variable="SWITCHYARD_BROKER_URL"),
    )

    found = examine.copyable(Finding("broker", "stalls", "warning", seen, next=COMMAND))

    assert found.next == expected


def test_a_command_about_a_cluster_names_no_second_node(monkeypatch: pytest.MonkeyPatch) -> None:
    url = CLUSTER.replace("redis+", "rediss+", 1) + "?ssl_ca_certs=/ca.pem"
    monkeypatch.setattr(
        examine, "switchyard_settings", lambda: SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL")
    )
    step = "Wait while a reshard runs; after one that was interrupted, run `valkey-cli --cluster fix 10.0.0.1:6379`."

    found = examine.copyable(Finding("broker", "half_moved", "error", "hash slot 1 is half moved", next=step))

    assert found.next.endswith(f"`valkey-cli --tls --cacert /ca.pem {ADMIN} --cluster fix 10.0.0.1:6379`.")
