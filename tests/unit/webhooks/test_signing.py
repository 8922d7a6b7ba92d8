"""The signed body is stable, and only the secret's holder can have signed it."""

from datetime import UTC, datetime

import pytest

from apps.webhooks.delivering import seconds_of
from apps.webhooks.models import Endpoint, Event
from apps.webhooks.signing import body_of, canonical, headers_for

# From the specification's own example.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_known_message_gets_the_known_signature():
    headers = headers_for(MESSAGE_ID, BODY, SECRET, datetime.fromtimestamp(1614265330, tz=UTC))

    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (MESSAGE_ID, "1614265330")
    assert headers["webhook-signature"] == SIGNATURE


def test_equal_payloads_give_equal_bytes_whatever_their_order():
    at = datetime(2026, 11, 20, 9, 0, 0, 5, tzinfo=UTC)
    bodies = [
        body_of(Event(type="invoice.paid", payload=canonical(payload), created_at=at))
        for payload in ({"b": [1, 2.5], "a": "ü"}, {"a": "ü", "b": [1, 2.5]})
    ]

    assert bodies[0] == bodies[1]
    assert bodies[0] == (
        b'{"type":"invoice.paid","timestamp":"2026-11-20T09:00:00.000005Z","data":{"a":"\\u00fc","b":[1,2.5]}}'
    )


def test_a_url_is_shown_without_its_query():
    assert Endpoint(url="https://example.com/hook?token=canary").shown_url == "https://example.com/hook?…"


NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("3600", 3600.0),
        ("999999", 3600.0),
        ("Fri, 20 Nov 2026 09:01:30 GMT", 90.0),
        ("Fri, 20 Nov 2026 08:00:00 GMT", 0.0),
        ("Fri, 20 Nov 2099 09:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 400, None),
        ("Fri, 20 Nov 2026", None),
        ("Fri, 99 Nov 2026 09:00:00 GMT", None),
        ("20 Nov 2026 09:00:00 -0000", None),
    ],
)
def test_a_wait_is_read(value, seconds):
    assert seconds_of(value, NOW) == seconds
