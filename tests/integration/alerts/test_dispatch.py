"""Alerts leave once, in digests, with retries; to further people unless acknowledged, and not in quiet hours."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
from django.db import DatabaseError, connection
from django.test import override_settings
from django.utils import timezone
from msgspec.structs import replace

from switchyard.alerts import intake, notice, sending
from switchyard.alerts.models import BACKOFF_S, Alert, Delivery
from switchyard.alerts.sending import LastingAlerts, Throttle
from switchyard.broker.interface import attach
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores import alert_groups
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from switchyard.broker.topology import AlertRule
from tests.factories.smtp import smtp_server
from tests.integration.alerts.conftest import Receiver, fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.alerts.test_channels import with_rules
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def make_due() -> None:
    """Bring what waits for its next try forward to now."""
    Delivery.objects.filter(state="pending").update(next_try_at=timezone.now())


def test_first_alert_of_a_group_leaves_at_once(groups, receiver):
    groups.raise_(fact())

    with with_alert_urls(receiver.url):
        assert sending.dispatch_due() == 1

    body, alert = receiver.bodies[0], Alert.objects.get()
    assert (body["title"], body["count"], body["severity"]) == ("generate_report gave up: KeyError", 1, "critical")
    assert body["link"].endswith("/admin/switchyard_dead_letters/deadletter/?fingerprint=f00dfacef00dface")
    assert receiver.headers[0]["idempotency-key"] == f"{alert.pk}-0"
    assert (alert.count, alert.state, alert.deliveries.get().state) == (1, "open", "sent")


def test_a_thousand_alerts_of_one_cause_are_a_handful_of_messages(groups, receiver):
    with with_alert_urls(receiver.url):
        for index in range(1_000):
            groups.raise_(fact())
            if index % 100 == 0:
                sending.dispatch_due()
        wait_for(lambda: sending.dispatch_due() or sum(body["new"] for body in receiver.bodies) == 1_000)
        wait_for(lambda: sending.dispatch_due() == 0 and receiver.bodies[-1]["count"] == 1_000)

    assert len(receiver.bodies) <= 12  # one a dispatch above, and what came since
    assert sum(body["new"] for body in receiver.bodies) == 1_000
    assert Alert.objects.get().count == 1_000


@pytest.mark.usefixtures("groups")
def test_letters_of_many_causes_are_a_few_messages_a_minute_whose_counts_add_up(
    facilities, valkey, receiver, monkeypatch
):
    monkeypatch.setattr(alert_groups, "CLAIM_MS", 20)
    groups = AlertGroups(RedisCalls(valkey), Keys("alerts-test"))
    attach(dramatiq.get_broker(), dataclasses.replace(facilities, alerts=groups))
    clock = Mock(return_value=0.0)
    throttle, letters, causes = Throttle(clock), 1_000, 20
    with with_alert_urls(receiver.url):
        for number in range(letters):
            groups.raise_(fact(fingerprint=f"cause-{number % causes}"))
            if number % 50 == 0:
                sending.dispatch_due(throttle)
        for _ in range(20):
            sending.dispatch_due(throttle)
        groups.raise_(fact(kind="finding", fingerprint="finding-pools.down", title="No pool serves urgent"))
        wait_for(lambda: sending.dispatch_due(throttle) or receiver.bodies[-1]["fingerprint"] == "finding-pools.down")
        in_a_minute = len(receiver.bodies) - 1
        while len(receiver.bodies) <= causes:
            clock.return_value += 60.0
            wait_for(lambda: sending.dispatch_due(throttle))

    assert in_a_minute == sending.MOST_A_MINUTE
    assert len(receiver.bodies) == causes + 1
    assert len({body["fingerprint"] for body in receiver.bodies}) == causes + 1
    counts = {alert.fingerprint: alert.count for alert in notice.counted_now(Alert.objects.filter(kind="dead_letter"))}
    assert counts == {f"cause-{number}": letters // causes for number in range(causes)}


HOST_DOWN = "mx.example.com:25 is down for generate_report (refuses connections): 5 of 9 jobs failed in the last 5 min."
FAILING = "All of generate_report's jobs failed with KeyError, because a setting is missing: 6 of 6 in the last 5 min."


@pytest.mark.parametrize("told", [FAILING, HOST_DOWN])
def test_letters_of_failures_that_were_told_wait_for_an_end(groups, receiver, told):
    error = "exhausted after 6 attempts in slow: mx.example.com:25: refuses connections; try again"
    other_error = "generate_report gave up: OSError"
    letters = [fact(fingerprint="k", detail=error), fact(fingerprint="o", detail=error, title=other_error)]
    with with_alert_urls(receiver.url):
        groups.raise_(fact(kind="finding", fingerprint="finding-actors.failing", title=told, detail="Mend it."))
        sending.dispatch_due()
        for letter in letters:
            groups.raise_(letter)
        groups.raise_(fact(fingerprint="other", title="report gave up: KeyError", actor="report"))
        sending.dispatch_due()
        groups.raise_(letters[0])
        wait_for(lambda: Alert.objects.filter(fingerprint="k", count=2).exists() or sending.dispatch_due())
        make_due()
        sending.dispatch_due()
        held = set(Alert.objects.filter(deliveries__state="pending").values_list("fingerprint", flat=True))
        intake.resolve(Alert.objects.get(fingerprint="o").pk, by="ada")
        intake.resolve_gone("finding", ())
        make_due()
        sending.dispatch_due()

    assert held == ({"k"} if told == FAILING else {"k", "o"})
    counts = [(body["fingerprint"], body["count"]) for body in receiver.bodies if body["fingerprint"] == "k"]
    assert counts == [("k", 2)]
    assert {"other"} <= {body["fingerprint"] for body in receiver.bodies}


def test_failing_channel_is_tried_five_times_holds_up_no_other_raises_no_alert_and_names_no_secret(
    groups, receiver, second_receiver, valkey, caplog
):
    receiver.answers = [500] * 10
    groups.raise_(fact())

    with with_alert_urls(receiver.url, second_receiver.url):
        sending.dispatch_due()
        assert len(second_receiver.bodies) == 1
        for _ in range(8):
            make_due()
            sending.dispatch_due()

    failing = Delivery.objects.get(state="given_up")
    assert (failing.tries, failing.error) == (5, "answered 500")
    assert (len(receiver.answers), len(second_receiver.bodies)) == (5, 1)
    assert len(list(valkey.scan_iter("alerts-test:*group*"))) <= 1
    assert "alert given up" in caplog.text
    assert "canary-secret" not in caplog.text + json.dumps(list(Delivery.objects.values("channel", "error")))


def test_channel_that_is_back_gets_what_was_given_up_while_it_lasts(groups, receiver):
    receiver.answers = [500] * 6
    for cause in ("lasts", "over"):
        groups.raise_(fact(fingerprint=cause))
    with with_alert_urls(receiver.url):
        sending.dispatch_due()
        Delivery.objects.update(state="given_up", tries=5)
        Alert.objects.filter(fingerprint="over").update(state="resolved")
        receiver.answers = []
        sending.dispatch_due()
        soon = len(receiver.bodies)
        Delivery.objects.update(next_try_at=timezone.now() - sending.RETRY_AFTER - timedelta(seconds=1))
        sending.dispatch_due()

    assert (soon, [body["fingerprint"] for body in receiver.bodies]) == (0, ["lasts"])


def test_channel_that_recovers_gets_the_message(groups, receiver):
    receiver.answers = [503, 503]
    groups.raise_(fact())

    with with_alert_urls(receiver.url):
        before = timezone.now()
        sending.dispatch_due()
        waits = timedelta(seconds=BACKOFF_S[0])
        assert before + waits <= Delivery.objects.get().next_try_at <= timezone.now() + waits
        for _ in range(2):
            make_due()
            sending.dispatch_due()

    assert len(receiver.bodies) == 1
    assert Delivery.objects.get().tries == 3


def test_hanging_channel_ends_at_its_deadline_while_the_other_is_told(groups, receiver, second_receiver, monkeypatch):
    receiver.hang = threading.Event()
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 0.5)
    groups.raise_(fact())

    with with_alert_urls(receiver.url, second_receiver.url):
        assert sending.dispatch_due() == 1

    assert len(second_receiver.bodies) == 1
    assert Delivery.objects.get(state="pending").error == "ReadTimeoutError"
    receiver.hang.set()


def test_mail_is_sent_over_real_smtp_once(groups):
    groups.raise_(fact(title="bad\r\nBcc: evil@example.com"))
    backend = "django.core.mail.backends.smtp.EmailBackend"

    with (
        smtp_server() as server,
        with_alert_urls("mailto:ops@example.com,on-call@example.com"),
        override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=server.port),
    ):
        assert sending.dispatch_due() == 1
        assert sending.dispatch_due() == 0

    mail = server.mails[0]
    assert server.recipients == ["ops@example.com", "on-call@example.com"]
    assert mail["Subject"] == "[critical] bad Bcc: evil@example.com"
    assert mail["Message-ID"] == f"<alert-{Alert.objects.get().pk}-0@switchyard>"
    assert "exhausted after 6 attempts" in mail.get_content()


def test_process_killed_before_settling_sends_nothing_twice(groups, receiver, valkey):
    groups.raise_(fact())
    with with_alert_urls(receiver.url):
        sending.dispatch_due()
        # As a process does that was killed before it settled the group, 30 s later.
        key = next(key for key in valkey.scan_iter("alerts-test:*group*"))
        valkey.hset(key, "sent", 0)
        valkey.zadd("alerts-test:{alerts}:due", {"f00dfacef00dface": 0})
        groups.raise_(fact())

        sending.dispatch_due()

    assert [body["count"] for body in receiver.bodies] == [1]
    assert Alert.objects.get().count == 2
    with with_alert_urls(receiver.url):
        wait_for(lambda: sending.dispatch_due() or len(receiver.bodies) == 2)
    assert [body["new"] for body in receiver.bodies] == [1, 1]


@pytest.mark.django_db(transaction=True)
def test_database_that_is_away_delays_the_row_not_the_message(groups, receiver):
    groups.raise_(fact())

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise DatabaseError("away")

    with with_alert_urls("log:", receiver.url), connection.execute_wrapper(refuse):
        assert sending.dispatch_due() == 2
        assert sending.dispatch_due() == 0
    assert Alert.objects.count() == 0
    with with_alert_urls("log:", receiver.url):
        assert sending.dispatch_due() == 0

    assert [body["count"] for body in receiver.bodies] == [1]
    assert [(alert.state, alert.count) for alert in Alert.objects.all()] == [("open", 1)]


LATE = fact(kind="finding", fingerprint="finding-queues.late", title="default is late", severity="warning")
RULE = AlertRule("queues.late", channels=("team",), escalate_after_s=600, escalate_to=("oncall",))


@pytest.fixture
def escalating(groups, receiver, second_receiver):
    """A rule that sends to a team, and after ten minutes to those on call; what is late was sent."""
    with with_rules(RULE, urls=(f"team={receiver.url}", f"oncall={second_receiver.url}")):
        groups.raise_(LATE)
        sending.dispatch_due()
        yield


def after_ten_minutes() -> None:
    waiting = Delivery.objects.filter(channel="oncall", state="pending")
    assert all(timedelta(minutes=9) < each.next_try_at - timezone.now() for each in waiting)
    waiting.update(next_try_at=timezone.now())
    sending.dispatch_due()


@pytest.mark.usefixtures("escalating")
def test_what_nobody_acknowledges_goes_to_further_people_who_hear_of_its_end_too(receiver, second_receiver):
    sending.dispatch_due()
    soon = len(second_receiver.bodies)
    after_ten_minutes()
    after_ten_minutes()
    intake.resolve_gone("finding", ())
    sending.dispatch_due()

    assert soon == 0
    assert [body["state"] for body in second_receiver.bodies] == ["open", "resolved"]
    assert [body["state"] for body in receiver.bodies] == ["open", "resolved"]


@pytest.mark.usefixtures("escalating")
@pytest.mark.parametrize("act", ["acknowledge", "end"])
def test_what_is_acknowledged_or_over_in_time_stays_where_it_is(second_receiver, act):
    alert = Alert.objects.get()
    if act == "acknowledge":
        assert notice.acknowledge(alert.pk, by="ada") == 1
    else:
        intake.resolve_gone("finding", ())

    after_ten_minutes()

    assert second_receiver.bodies == []


@contextmanager
def quiet(receiver: Receiver) -> Iterator[None]:
    """Quiet hours, an hour of which is left."""
    now = timezone.localtime()
    hours = f"{now - timedelta(hours=1):%H:%M}", f"{now + timedelta(hours=1):%H:%M}"
    with with_rules(urls=(receiver.url,), quiet=hours):
        yield


def lasting_of(found: list[AlertFact], clock: Mock, *times_s: float) -> LastingAlerts:
    """Note facts at some times, and send what is to be sent."""
    lasting = LastingAlerts("finding", clock)
    for clock.return_value, each in zip(times_s, found, strict=True):
        lasting.note([(each, 0.0)])
        sending.dispatch_due()
    return lasting


CRITICAL = replace(LATE, severity="critical", title="default is 90 × late")


@pytest.mark.parametrize("seen_first", [LATE, CRITICAL])
def test_in_quiet_hours_a_warning_waits_until_their_end_or_until_it_is_critical(groups, receiver, seen_first):
    clock = Mock(return_value=0.0)
    with quiet(receiver):
        lasting_of([LATE], clock, 0.0)
        held = len(receiver.bodies)
        leader = lasting_of([seen_first, seen_first, CRITICAL, CRITICAL], clock, 5.0, 10.0, 15.0, 20.0)
        leader.note([(CRITICAL, 0.0)])
        sending.dispatch_due()

    assert held == 0
    assert [(body["severity"], body["title"]) for body in receiver.bodies] == [("critical", "default is 90 × late")]


def test_in_quiet_hours_what_is_critical_is_sent_and_what_ended_is_not(groups, receiver):
    with quiet(receiver):
        groups.raise_(fact())
        groups.raise_(LATE)
        sending.dispatch_due()
        intake.resolve_gone("finding", ())
        sending.dispatch_due()
    Delivery.objects.filter(state="pending").update(next_try_at=timezone.now())
    with with_rules(urls=(receiver.url,)):
        sending.dispatch_due()

    assert [body["type"] for body in receiver.bodies] == ["switchyard.alert.dead_letter"]
