"""Commands of findings name the server that they are about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from switchyard.operations.findings import failures
from switchyard.operations.findings.finding import Finding

CLUSTER = "redis+cluster://user:secret@10.0.0.1:6379,10.0.0.2:6379"
CHANGE = "CONFIG SET appendonly yes"
COMMAND = f"valkey-cli {CHANGE}"
ADMIN = "--user ADMIN --askpass"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Command lines of the doctor's host."""
    found = {"redis-cli", "valkey-cli"}
    monkeypatch.setattr(failures.shutil, "which", lambda name: name if name in found else None)
    return found


@pytest.mark.parametrize(
    ("url", "seen", "expected"),
    [
        (CLUSTER, "node 10.0.0.2:6380: it blocks", f"valkey-cli -h 10.0.0.2 -p 6380 {ADMIN} {CHANGE}"),
        (CLUSTER, "a lock is left", f"valkey-cli -c -h 10.0.0.1 -p 6379 {ADMIN} {CHANGE}"),
        ("unix:///run/v.sock", "it blocks", f"valkey-cli -s /run/v.sock {CHANGE}"),
        ("redis://:secret@v:6379/0", "it blocks", f'valkey-cli -u "$SWITCHYARD_BROKER_URL" {CHANGE}'),
        ("redis://room:secret@v/0", "it blocks", f"valkey-cli -h v -p 6379 {ADMIN} {CHANGE}"),
        ("rediss://:secret@v:6380/0", "it blocks", f"valkey-cli -h v -p 6380 --tls --askpass {CHANGE}"),
        (
            "rediss://room:secret@v:6380/0?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/c.key",
            "it blocks",
            f"valkey-cli -h v -p 6380 --tls --cacert /ca.pem --cert /c.pem --key /c.key {ADMIN} {CHANGE}",
        ),
    ],
)
def test_a_command_names_its_server_tls_and_a_user_that_may_run_it(
    url: str, seen: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        failures,
        "switchyard_settings",
        lambda: SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL"),
    )

    found = failures.copyable(Finding("broker", "stalls", "warning", seen, next=COMMAND))

    assert found.next == expected


def test_a_command_about_a_cluster_names_no_second_node(monkeypatch: pytest.MonkeyPatch) -> None:
    url = CLUSTER.replace("redis+", "rediss+", 1) + "?ssl_ca_certs=/ca.pem"
    monkeypatch.setattr(
        failures,
        "switchyard_settings",
        lambda: SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL"),
    )
    step = "Wait while a reshard runs; after one that was interrupted, run `valkey-cli --cluster fix 10.0.0.1:6379`."

    found = failures.copyable(Finding("broker", "half_moved", "error", "hash slot 1 is half moved", next=step))

    assert found.next.endswith(f"`valkey-cli --tls --cacert /ca.pem {ADMIN} --cluster fix 10.0.0.1:6379`.")
