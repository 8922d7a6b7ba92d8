"""Commands of findings name the server that they are about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from switchyard.conf import read
from switchyard.operations.findings import examine
from switchyard.operations.findings.finding import Finding

CHANGE = "CONFIG SET appendonly yes"
COMMAND = f"valkey-cli {CHANGE}"
ADMIN = "--user ADMIN --askpass"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Command lines of the doctor's host."""
    found = {"redis-cli", "valkey-cli"}
    monkeypatch.setattr(examine.shutil, "which", lambda name: name if name in found else None)
    return found


@pytest.mark.parametrize(
    ("url", "seen", "expected"),
    [
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
        examine, "switchyard_settings", lambda: SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL")
    )

    found = examine.copyable(Finding("broker", "stalls", "warning", seen, next=COMMAND))

    assert found.next == expected


def test_a_command_names_the_host_of_an_address_that_no_shell_has(monkeypatch: pytest.MonkeyPatch) -> None:
    own = read({"TOPOLOGY": "project.topology.YARD", "BROKER_URL": "redis://v:6390/0"}, {}, debug=True)
    monkeypatch.setattr(examine, "switchyard_settings", lambda: own)

    found = examine.copyable(Finding("broker", "stalls", "warning", "it blocks", next=COMMAND))

    assert "$" not in found.next and " -h v -p 6390" in found.next
