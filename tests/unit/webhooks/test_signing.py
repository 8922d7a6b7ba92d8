"""The signed body is stable, and only the secret's holder can have signed it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from apps.webhooks.models import Endpoint, Event
from apps.webhooks.signing import body_of, canonical, headers_for

# From the specification's own example.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = datetime(2021, 2, 25, 22, 46, 54, tzinfo=UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def at_attempt() -> datetime:
    return datetime.fromtimestamp(1614265330, tz=UTC)


def test_a_known_message_gets_the_known_signature() -> None:
    headers = headers_for(MESSAGE_ID, BODY, SECRET, at_attempt())

    assert headers["webhook-id"] == MESSAGE_ID
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == SIGNATURE


@pytest.mark.parametrize("tampered", ["body", "webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_changed_part_is_noticed(tampered: str) -> None:
    now = datetime.now(UTC)
    headers = headers_for("msg_1", BODY, SECRET, now)
    body = BODY
    if tampered == "body":
        body = BODY + b" "
    elif tampered == "webhook-timestamp":
        headers[tampered] = str(int(now.timestamp()) + 1)
    elif tampered == "webhook-id":
        headers[tampered] = "msg_2"
    else:
        headers[tampered] = SIGNATURE

    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers)


@pytest.mark.parametrize("off", [timedelta(minutes=-6), timedelta(minutes=6)])
def test_a_replay_after_five_minutes_is_refused(off: timedelta) -> None:
    now = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    headers = headers_for("msg_1", BODY, SECRET, now)

    with time_machine.travel(now + off, tick=False), pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, headers)


def test_equal_payloads_give_equal_bytes_whatever_their_order() -> None:
    at = datetime(2026, 11, 20, 9, 0, 0, 5, tzinfo=UTC)
    bodies = [
        body_of(Event(type="invoice.paid", payload=canonical(payload), created_at=at))
        for payload in ({"b": [1, 2.5], "a": "ü"}, {"a": "ü", "b": [1, 2.5]})
    ]

    assert bodies[0] == bodies[1]
    assert bodies[0] == (
        b'{"type":"invoice.paid","timestamp":"2026-11-20T09:00:00.000005Z","data":{"a":"\\u00fc","b":[1,2.5]}}'
    )


def test_a_url_is_shown_without_its_query() -> None:
    assert Endpoint(url="https://example.com/hook?token=canary").shown_url == "https://example.com/hook?…"
