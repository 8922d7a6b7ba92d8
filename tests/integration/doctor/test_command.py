"""``manage.py switchyard doctor``: what it prints, how it exits, and that it never hangs."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

import switchyard
from switchyard.broker.interface import Facilities
from switchyard.broker.redis import acl
from switchyard.operations.findings import examine
from switchyard.operations.findings.finding import Finding, worst
from tests.chaos.server import SERVER_NAMES, ServerUnderTest, server_binary
from tests.integration.doctor.conftest import Configure
from tests.tls import GuardedServer

pytestmark = pytest.mark.django_db(transaction=True)


def run(*arguments: str, tty: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    out.isatty = lambda: tty  # type: ignore[method-assign]
    try:
        call_command("switchyard", "doctor", *arguments, stdout=out)
    except SystemExit as ended:
        return ended.code, out.getvalue()
    return 0, out.getvalue()


def findings_are(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr("switchyard.commands.doctor.examine", lambda: list(findings))


OK = Finding("disk", "free", "ok", "70 GB free")
SKIPPED = Finding("pools", "not_checked", "skipped", "not checked")
WARNING = Finding(
    "scheduler", "down", "warning", "no scheduler leads", "None runs", "manage.py switchyard runscheduler"
)
ERROR = Finding("broker", "away", "error", "the server does not answer", "It is down", "manage.py switchyard broker")


@pytest.mark.parametrize(
    ("findings", "code", "verdict"),
    [((OK, SKIPPED), 0, "healthy"), ((OK, WARNING), 1, "warnings"), ((WARNING, ERROR, OK), 2, "errors")],
)
def test_it_exits_as_the_worst_finding_says(
    findings: tuple[Finding, ...], code: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings_are(monkeypatch, *findings)

    exit_code, printed = run("--json")

    told = json.loads(printed)
    assert (exit_code, told["exit_code"], told["verdict"]) == (code, code, verdict)
    assert told["version"] == switchyard.__version__
    assert sum(told["counts"].values()) == len(findings)


def test_people_read_what_was_seen_why_and_what_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    findings_are(monkeypatch, OK, ERROR, WARNING)

    _, printed = run()

    assert printed.splitlines() == [
        f"Switchyard {switchyard.__version__}",
        "",
        "disk",
        "  ok       70 GB free",
        "",
        "broker",
        "  error    the server does not answer",
        "           why: It is down",
        "           next: manage.py switchyard broker",
        "",
        "scheduler",
        "  warning  no scheduler leads",
        "           why: None runs",
        "           next: manage.py switchyard runscheduler",
        "",
        "1 error and 1 warning; begin with: the server does not answer",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WARNING, Finding("broker", "slow", "warning", "in its slow log within the last hour: 7 of our commands")),
        (Finding("broker", "hangs", "error", "the broker has not answered after 4 s"), WARNING),
        (WARNING, Finding("actors", "failed_before", "warning", "5 jobs of report failed")),
        (Finding("configuration", "E9", "error", "hosts: is *"), Finding("broker", "no_limit", "warning", "no limit")),
    ],
)
def test_it_begins_with_the_headline_of_the_overview(
    first: Finding, second: Finding, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings_are(monkeypatch, OK, second, first)

    last = run()[1].splitlines()[-1]
    assert "; begin with: " in last and last.endswith(first.seen)


def test_what_a_message_says_drives_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "an id \x1b[2J\n  ok       nothing"
    findings_are(monkeypatch, Finding("queues", "crashing", "warning", evil, evil, evil))

    _, printed = run()

    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 8


def test_a_yard_without_pools_is_told_of_each_group(facilities: Facilities, configure: Configure) -> None:
    configure(DEBUG=True)

    code, printed = run("--json")

    told = json.loads(printed)
    assert code == 1, printed
    assert list(dict.fromkeys(found["group"] for found in told["findings"])) == [
        "configuration", "disk", "broker", "pools", "queues", "scheduler", "history", "batches", "database",
        "outbox", "dead letters", "alerts",
    ]  # fmt: skip
    assert set(told["findings"][0]) == {"group", "code", "severity", "seen", "cause", "next", "subject"}
    assert {found["code"] for found in told["findings"] if found["severity"] == "warning"} == {"down"}


def test_a_broker_that_stands_still_holds_up_no_other_group(
    facilities: Facilities, own_server: ServerUnderTest
) -> None:
    own_server.stop()

    code, printed = run("--json")

    told = json.loads(printed)
    by_group = {found["group"]: found["severity"] for found in told["findings"]}
    assert code == 2
    assert (by_group["broker"], by_group["pools"], by_group["database"]) == ("error", "skipped", "ok")


def test_checks_that_all_hang_end_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    over = time.monotonic() + 60

    def hang() -> Any:
        while time.monotonic() < over:
            time.sleep(0.05)
        return ()

    for module in ("configuration", "disk", "database"):
        monkeypatch.setattr(getattr(examine, module), "look", hang)
    monkeypatch.setattr(examine, "look_at_servers", hang)
    monkeypatch.setattr(examine, "DEADLINE_S", 0.5)
    monkeypatch.setattr(examine, "UNANSWERED_S", 1.0)

    findings = examine.examine()
    over = 0.0

    assert worst(findings) == "error"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("of its own")

    monkeypatch.setattr(examine.disk, "look", broken)

    assert "RuntimeError: of its own" in next(found.seen for found in examine.examine() if found.code == "broken")


@pytest.mark.parametrize("name", SERVER_NAMES)
def test_a_user_that_may_not_look_is_a_warning_with_the_user_that_may(
    name: str, tmp_path: Path, configure: Configure
) -> None:
    server = GuardedServer(
        tmp_path / "server", server_binary(name), re.sub(r"user (\S+) off", r"user \1 on >\1", acl.render())
    )

    def refused(role: str) -> list[tuple[str, str]]:
        configure(broker_url=server.url(f"switchyard-{role}"))
        found = json.loads(run("--json")[1])["findings"]
        assert not [one for one in found if one["code"] in ("away", "broken", "not_checked")]
        return [(one["group"], one["severity"]) for one in found if one["code"] == "not_permitted"]

    try:
        assert refused("worker") == [("queues", "warning")]
        assert refused("scheduler") == []
        assert refused("room") == []
    finally:
        server.close()
