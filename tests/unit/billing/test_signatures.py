"""Signatures of inbound events, held against the published vector and the Standard Webhooks library."""

from __future__ import annotations

import base64
import datetime
import secrets

import pytest
from django.test import override_settings
from standardwebhooks.webhooks import Webhook

from apps.billing import apps, signatures

SECRET = "a secret of more than thirty-two characters"
BODY = '{"type": "payment.received", "note": "grüezi"}'.encode()
NOW_S = 1_800_000_000


def headers(**changes: str | None) -> dict[str, str]:
    made = signatures.signed_headers(SECRET, "evt_1", BODY, now_s=NOW_S)
    made |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in made.items() if value is not None}


def test_the_published_vector_is_met():
    signature = signatures.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_the_library_signs_is_accepted():
    key = secrets.token_bytes(32)
    at = datetime.datetime.fromtimestamp(NOW_S, tz=datetime.UTC)
    signature = Webhook(key).sign("evt_1", at, BODY.decode())
    sent = {"webhook-id": "evt_1", "webhook-timestamp": str(NOW_S), "webhook-signature": signature}

    whsec = "whsec_" + base64.b64encode(key).decode()

    assert signatures.verify(whsec, sent, BODY, now_s=NOW_S) == "evt_1"


def test_a_secret_without_prefix_is_its_own_bytes():
    made = signatures.signed_headers(SECRET, "evt_1", BODY)

    Webhook(SECRET.encode()).verify(BODY, made, json_parse=False)


def test_one_fitting_signature_of_several_is_enough():
    good = headers()["webhook-signature"]

    assert signatures.verify(SECRET, headers(webhook_signature=f"v1,AAAA {good} v1a,xyz"), BODY, now_s=NOW_S) == "evt_1"


@pytest.mark.parametrize("off_s", [-300, 0, 300])
def test_five_minutes_either_way_are_tolerated(off_s):
    assert signatures.verify(SECRET, headers(), BODY, now_s=NOW_S + off_s) == "evt_1"


@pytest.mark.parametrize(("off_s", "fact"), [(-301, "301 s ahead"), (301, "301 s old")])
def test_more_than_five_minutes_are_refused(off_s, fact):
    with pytest.raises(signatures.SignatureRefused, match=fact):
        signatures.verify(SECRET, headers(), BODY, now_s=NOW_S + off_s)


@pytest.mark.parametrize(
    "changes",
    [
        *({"webhook_id": None}, {"webhook_id": ""}, {"webhook_id": "evt_2"}, {"webhook_id": "evt 1"}),
        *({"webhook_id": "e" * 256}, {"webhook_timestamp": None}, {"webhook_timestamp": "soon"}),
        *({"webhook_timestamp": "nan"}, {"webhook_timestamp": f"{NOW_S}.5"}, {"webhook_timestamp": f"-{NOW_S}"}),
        *({"webhook_timestamp": "9" * 400}, {"webhook_timestamp": str(NOW_S + 1)}, {"webhook_signature": None}),
        *({"webhook_signature": ""}, {"webhook_signature": "v1"}, {"webhook_signature": "v1,"}),
        *({"webhook_signature": "v1,not base64 ä"}, {"webhook_signature": "v2," + "A" * 43 + "="}),
    ],
)
def test_anything_else_in_the_headers_is_refused(changes):
    with pytest.raises(signatures.SignatureRefused):
        signatures.verify(SECRET, headers(**changes), BODY, now_s=NOW_S)


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"payment", b"paymenT"), b"\xff\xfe"])
def test_another_body_is_refused(body):
    with pytest.raises(signatures.SignatureRefused, match="none fits"):
        signatures.verify(SECRET, headers(), body, now_s=NOW_S)


def test_another_secret_is_refused_and_neither_is_told():
    with pytest.raises(signatures.SignatureRefused) as refused:
        signatures.verify("another secret of more than 32 characters", headers(), BODY, now_s=NOW_S)

    assert "another secret" not in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_cannot_sign_fails_the_system_check(secret, settings):
    with override_settings(PAYMENT_SECRET=secret):
        (error,) = apps.check_payment_secret(None)

    assert error.id == "switchyard.E060"
    assert "SWITCHYARD_PAYMENT_SECRET" in error.msg and "copy the sender's secret" in error.hint


def test_the_secret_of_this_project_passes_the_system_check():
    assert apps.check_payment_secret(None) == []
