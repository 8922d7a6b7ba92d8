"""Findings that last call a person, one alert a kind; what others explain calls nobody; ``diagnose`` says causes."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import Mock

import pytest
from django.core.management import call_command
from django.utils import timezone

from switchyard.alerts import intake, sending
from switchyard.alerts.models import Alert
from switchyard.broker.health.server import ServerFinding
from switchyard.broker.interface import Facilities
from switchyard.commands import status as command
from switchyard.operations import alerting, overview
from switchyard.operations.alerting import LATELY_S, FindingAlerts, after_s, beat, fact_of
from switchyard.operations.findings import records
from switchyard.operations.findings.actors import GROUP, FailingActor, judge
from switchyard.operations.findings.finding import Button, Finding, causes, ranked
from switchyard.operations.findings.lateness import GROUP as LATE_QUEUES
from switchyard.operations.overview import Verdict
from tests.integration.alerts.conftest import Receiver, fact
from tests.unit.alerts.configuration import with_alert_urls

pytestmark = pytest.mark.django_db


def late(queue: str, *, severity: str = "error") -> Finding:
    return Finding("queues", "late", severity, f"{queue} is late", "it is", "look", queue)  # type: ignore[arg-type]


def test_a_yard_without_pools_calls_once_and_names_them_all(facilities):
    clock, groups = Mock(return_value=0.0), []
    alerts = FindingAlerts(clock)
    for clock.return_value in (0.0, 10.0, 20.0, 30.0, 40.0):
        alerts.check()
        groups += facilities.alerts.claim_due()

    [group] = [each for each in groups if each.sample.fingerprint == "finding-pools.down"]
    assert (group.count, group.sample.kind) == (1, "finding")
    assert "pool" in group.sample.title and "runpool" in group.sample.detail
    assert not Alert.objects.exists()


def test_a_yard_in_which_nothing_calls_is_examined_less_often(monkeypatch):
    clock, examined = Mock(return_value=0.0), Mock(return_value=Mock(findings=[]))
    monkeypatch.setattr(alerting.FACTS, "read", lambda: (Mock(), ""))
    monkeypatch.setattr(alerting, "diagnose", examined)
    alerts = FindingAlerts(clock)
    for clock.return_value in range(0, 60, 5):
        examined.return_value.findings = ranked([late("slow")]) if clock.return_value > 20 else []
        alerts.check()

    assert examined.call_count == len([0, 15, *range(30, 60, 5)])


@pytest.fixture
def called(facilities: Facilities, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, str, str]]]:
    """Check every five seconds; return the alerts: ``called(100, {0: findings, 40: those that are present then})``."""

    def check(until_s: int, present: dict[int, list[Finding]]) -> list[tuple[int, str, str]]:
        clock, now, found = Mock(return_value=0), list[Finding](), []
        monkeypatch.setattr(alerting, "diagnose", lambda *_: Mock(findings=ranked(now)))
        alerts = FindingAlerts(clock)
        for at_s in range(0, until_s, 5):
            clock.return_value, now[:] = at_s, present.get(at_s, now)
            alerts.check()
            found += [(at_s, each.sample.name, each.sample.title) for each in facilities.alerts.claim_due()]
        return found

    return check


def test_a_queue_that_joins_after_the_call_calls_again(called):
    found = called(95, {0: [late("slow"), late("default")], 50: [late("slow"), late("urgent"), late("default")]})

    assert [name_and_title for _, *name_and_title in found] == [
        ["queues.late", "slow is late. (and 1 more)"], ["queues.late:urgent", "urgent is late."],
    ]  # fmt: skip


def test_trouble_of_a_queue_that_goes_on_under_another_name_does_not_wait_anew(called):
    slow = late("slow", severity="warning")
    found = called(100, {0: [slow], 40: [replace(slow, code="ends_late")]})

    assert [(at_s, name) for at_s, name, _ in found] == [(65, "queues.ends_late")]


def test_what_follows_a_trouble_that_has_called_waits_for_its_own_time(called):
    down = Finding("pools", "down", "error", "no pool serves slow", subject="slow")
    found = called(100, {0: [down], 50: [late("slow")]})

    assert [(at_s, name) for at_s, name, _ in found] == [(20, "pools.down"), (80, "queues.late")]


def test_what_has_lasted_beside_it_or_is_about_nothing_hastens_no_call(called):
    disk, slow = Finding("disk", "low", "warning", "little is left", "it is", "look"), late("slow", severity="warning")
    later = [replace(slow, code="burning", subject="slow"), replace(disk, group="history", code="behind")]
    found = called(150, {0: [slow, disk], 70: [slow, disk, *later]})

    assert [name for at_s, name, _ in found if at_s < 100] == ["disk.low", "queues.late"]
    assert [at_s for at_s, name, _ in found if name == "history.behind"] == [130]


def test_a_time_without_broker_neither_ends_nor_ages_what_lasts(facilities, watcher, monkeypatch):
    clock, present = Mock(return_value=0.0), [late("slow", severity="warning")]
    monkeypatch.setattr(alerting, "diagnose", lambda *_: Mock(findings=ranked(present)))
    monkeypatch.setattr(alerting.FACTS, "read", lambda: (None if 40 < clock.return_value < 100 else Mock(), "away"))
    alerts = FindingAlerts(clock)
    sent: dict[int, int] = {}

    def look(first_s: int, last_s: int) -> None:
        for clock.return_value in range(first_s, last_s, 5):
            alerts.check()
            sent[clock.return_value] = sending.dispatch_due()

    with with_alert_urls(watcher.url):
        look(0, 145)
        monkeypatch.setattr(alerting.FACTS, "read", lambda: (None if clock.return_value < 300 else Mock(), "away"))
        look(145, 330)
        del present[:]
        look(330, 355)

    assert [at_s for at_s, messages in sent.items() if messages] == [120, 345]
    assert [body["state"] for body in watcher.bodies] == ["open", "resolved"]


@pytest.fixture
def watcher() -> Iterator[Receiver]:
    with Receiver().receiving() as made:
        yield made


def test_failures_whose_dead_letters_were_sent_call_once(facilities, watcher, monkeypatch):
    now = timezone.now()
    failing = FailingActor("generate_report", "slow", "KeyError", 6, 6, now, now, letters=2, fingerprint="f00d")
    present, clock = [judge(failing)], Mock(return_value=0.0)
    monkeypatch.setattr(alerting, "diagnose", lambda *_: Mock(findings=ranked(present)))
    alerts = FindingAlerts(clock)
    with with_alert_urls(watcher.url):
        facilities.alerts.raise_(fact())
        sending.dispatch_due()
        for clock.return_value in range(0, 130, 10):
            alerts.check()
        sending.dispatch_due()
        told = [body["title"] for body in watcher.bodies]
        present += [judge(replace(failing, actor="sync_crm"))]
        intake.resolve(Alert.objects.get().pk, by="ada")  # its letters are triaged, and it goes on
        for clock.return_value in range(130, 260, 10):
            alerts.check()
        sending.dispatch_due()

    assert told == ["generate_report gave up: KeyError"]
    titles = [body["title"].partition(":")[0] for body in watcher.bodies[1:]]
    assert titles == ["All of generate_report's jobs failed with KeyError"]
    assert "and 1 more" in watcher.bodies[1]["title"] and "2 gave up" in watcher.bodies[1]["title"]


def test_nothing_is_known_while_the_broker_is_away(facilities, monkeypatch):
    wrong = ServerFinding("wrong_type", "error", "a key is a string", "delete it")
    read = Mock(side_effect=[(None, "it is away"), (None, wrong)] * 2)
    monkeypatch.setattr(alerting.FACTS, "read", read)
    now = timezone.now()
    Alert.objects.create(kind="finding", fingerprint="finding-pools.down", count=1, first_at=now, last_at=now)
    clock = Mock(return_value=0.0)
    alerts = FindingAlerts(clock)
    for clock.return_value in (0.0, 10.0, 20.0, 30.0):
        alerts.check()

    assert facilities.alerts.claim_due() == []
    assert Alert.objects.get().state == "open"


def test_who_is_called_for_is_a_cause_of_a_kind_that_concerns_him():
    down = Finding("pools", "down", "error", "No pool serves urgent", "it ended", "runpool urgent", "urgent")
    debug = Finding("configuration", "debug", "error", "DEBUG is on", "it is", "look")
    found = causes(ranked([late("urgent"), late("slow"), late("default", severity="warning"), down, debug]))

    paused = [Finding("queues", "paused", "warning", "mail is paused", lasted_s=each) for each in (899.0, 901.0)]
    assert [after_s(each) for each in ranked(paused)] == [math.inf, 0.0]
    waits_s = {"urgent": 20.0, "slow": 30.0, "default": 60.0, "": None}
    assert [(each.finding.subject, after_s(each)) for each in found] == list(waits_s.items())
    fact = fact_of([each for each in found if each.finding.code == "late"])
    assert (fact.title, fact.queue, fact.fingerprint) == ("slow is late. (and 1 more)", "", "finding-queues.late")
    warnings = ranked([late("default", severity="warning"), replace(down, severity="warning")])
    waits = [fact_of([each]) for each in warnings]
    assert {each.name: each.severity for each in [fact, *waits]} == {"queues.late": "warning", "pools.down": "critical"}
    assert fact.severity == "critical"
    assert fact.detail.splitlines() == ["default is late.", "Cause: it is.", "Next: look"]
    failing = judge(FailingActor("sync", "slow", "KeyError", 6, 6, timezone.now(), timezone.now()))
    assert "Cause" not in fact_of(ranked([failing])).detail


def test_a_dead_channel_is_said_to_the_others():
    now = timezone.now()
    row = Alert.objects.create(kind="broker", fingerprint="broker-full", count=1, first_at=now, last_at=now)
    row.deliveries.create(channel="team", reported=0, count=1, tries=2, error="answered 500", next_try_at=now)

    [channel] = [each for each in ranked(records.look_at_alerts()) if each.finding.code == "channel"]

    assert after_s(channel) == 60.0
    fact = fact_of([channel])
    assert fact.fingerprint == "finding-alerts.channel" and fact.title.startswith("Alerts do not reach team: ")


def test_heartbeat_is_sent_while_the_yard_is_checked(facilities, watcher, monkeypatch, caplog):
    clock = Mock(return_value=0.0)
    alerts = FindingAlerts(clock)
    with with_alert_urls(alert_heartbeat_url=watcher.url):
        beat(alerts)
        before = len(watcher.asked)
        alerts.check()
        beat(alerts)
        clock.return_value = LATELY_S
        beat(alerts)
        alerts.check()
        watcher.answers = [500]
        beat(alerts)
    with with_alert_urls():
        beat(alerts)

    assert (before, len(watcher.asked)) == (0, 2)
    assert "answered 500" in caplog.text and "canary-secret" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_pools_that_are_down_come_first(facilities, capsys):
    overview.FACTS.forget()
    with pytest.raises(SystemExit) as ended:
        call_command("switchyard", "diagnose", "--json")

    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == told["exit_code"]
    assert told["exit_code"] in (1, 2)
    assert told["diagnosis"]["cause"] == "nothing_dispatches"
    assert told["diagnosis"]["confidence"] == 0.95
    assert told["diagnosis"]["next"].startswith("manage.py switchyard runpool")
    assert set(told["diagnosis"]) == {
        "cause", "title", "sentence", "evidence", "confidence", "next", "link", "queue", "actor",
    }  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("said", ["slower", ""])
def test_the_text_has_the_cause_its_step_and_the_others(facilities, capsys, monkeypatch, said):
    button = Button("Show mail", "switchyard-actor", "mail")
    findings = [
        GROUP.finding("warning", "silent", "nothing sends news", "", "look", "slow"),
        GROUP.finding("warning", "slower", "mail takes 25 s", "", "manage.py x", "default", button=button),
    ]
    verdict = Verdict("warn", "Slower", "Every queue is on time.", findings=tuple(ranked(findings if said else [])))
    room = overview.overview()
    monkeypatch.setattr(command, "read_room", lambda: replace(room, verdict=verdict))

    with pytest.raises(SystemExit) if said else nullcontext():
        call_command("switchyard", "diagnose")

    told = capsys.readouterr().out.splitlines()
    if not said:
        assert told == ["No cause of late or failing jobs. Every queue is on time."]
        return
    assert told[:2] == ["Slower than its own past (80 % sure)", "  mail takes 25 s."]
    assert "  next      manage.py x" in told
    assert "  page      /admin/operations/actors/mail/" in told
    assert told[-1] == "Then: a producer is silent: Nothing sends news."


@pytest.mark.django_db(transaction=True)
def test_a_late_queue_is_judged_by_the_reading_that_its_finding_is_of(facilities):
    late = LATE_QUEUES.finding("error", "late", "its free slots start nothing", "", "", "default")
    room = overview.overview()
    found = next(row for row, _ in room.rows if row.name == "default")
    rows = ((replace(found, busy=2, slots=8, state=replace(found.state, word="Late")), room.rows[0][1]),)
    verdict = Verdict("bad", "Late", late.seen, findings=tuple(ranked([late])))
    told = command.causes_of(replace(room, rows=rows, verdict=verdict))
    assert [each.cause for each in told] == ["nothing_dispatches"]
