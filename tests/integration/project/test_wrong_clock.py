"""A host whose clock is an hour off takes and sends what the others do: the server's clock decides."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client

from apps.mail import links
from apps.outbound.http import Response
from apps.webhooks import delivering, publishing, services
from apps.webhooks.models import Delivery
from switchyard.alerts import notice
from switchyard.alerts.models import Silence
from switchyard.api.models import IdempotentRequest
from switchyard.broker.clock import CLOCK
from switchyard.broker.interface import Facilities
from tests.factories.callers import Caller
from tests.factories.commands import json_of
from tests.integration.billing.test_api import body, post

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1, minutes=1)


@pytest.fixture(autouse=True)
def unmeasured(facilities):
    """A process that has asked no server for its time yet."""
    CLOCK.forget()
    yield
    CLOCK.forget()
    forget(facilities)


def forget(facilities: Facilities) -> None:
    CLOCK.forget()
    facilities.clock._due_s = 0.0


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def off(request, facilities):
    """This process becomes another host, whose clock is off."""
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True):
        forget(facilities)
        yield request.param


def test_a_signed_event_is_taken(off):
    assert post(body(), at_s=(datetime.now(UTC) - off).timestamp()).status_code == 202


def test_a_reset_link_of_a_host_that_is_wrong_works_for_an_hour(off, facilities):
    User.objects.create_user("ada", "ada@mail.example", "old password 1")

    page = "/account" + links.reset_link("ada@mail.example").partition("/account")[2]

    for wrong, said in ((-off, "Choose a new password"), (-off + HOUR, "does not work any more")):
        with time_machine.travel(datetime.now(UTC) + wrong, tick=True):
            CLOCK.forget()
            assert said in Client().get(page, follow=True).content.decode()


def test_a_webhook_is_signed_for_the_time_of_its_receivers(off, facilities, monkeypatch):
    services.create_endpoint("user:1", "https://example.com/hook", ["invoice.paid"])
    publishing.publish("user:1", "invoice.paid", {})
    facilities.clock.compare()  # as a worker does before each message
    sent: list[dict[str, str]] = []

    def send(*args: object, headers: dict[str, str], **options: object) -> Response:
        sent.append(headers)
        return Response(200, {}, b"")

    monkeypatch.setattr(delivering, "send", send)
    delivering.deliver(str(Delivery.objects.get().pk), is_last=True)

    right_s = (datetime.now(UTC) - off).timestamp()
    assert abs(int(sent[0]["webhook-timestamp"]) - right_s) < 30


def test_the_first_request_of_a_process_claims_its_key_at_the_right_time(off):
    caller = Caller()
    caller.headers["Idempotency-Key"] = "k"

    assert caller.post("/reconciliations", {"month": "2026-10"}).status_code == 202
    assert abs(IdempotentRequest.objects.get().claimed_at - (datetime.now(UTC) - off)) < timedelta(seconds=30)


def test_a_silence_and_a_pause_end_by_the_clock_of_the_others(off, facilities):
    until = notice.end_of("30m")
    paused_until = datetime.fromisoformat(json_of("queues", "pause", "slow", "--until", "30m")["until"])

    for end in (until, paused_until):
        assert abs(end - (datetime.now(UTC) - off) - timedelta(minutes=30)) < timedelta(seconds=30)
    Silence.objects.create(fingerprint="a", until=until, reason="the provider is slow")
    Silence.objects.create(fingerprint="b", until=datetime.now(UTC) - off - timedelta(minutes=1), reason="it was slow")
    assert [one.fingerprint for one in notice.in_force()] == ["a"]
