"""With the fixed keys of development the web answers only this machine."""

from __future__ import annotations

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from project.config import load
from project.development_keys import loopback_only

KEYS = {"DJANGO_SECRET_KEY": "k" * 40, "SWITCHYARD_PAYMENT_SECRET": "p" * 40}


def status(**headers: str) -> int:
    def answered(request: HttpRequest) -> HttpResponse:
        return HttpResponse("answered")

    response: HttpResponse = loopback_only(answered)(RequestFactory().get("/admin/", **headers))
    if response.status_code == 403:
        assert b"DJANGO_SECRET_KEY to a random value of 50 characters or more" in response.content
        assert b"SWITCHYARD_PAYMENT_SECRET to one of 32" in response.content
    return response.status_code


@pytest.mark.parametrize(
    ("address", "headers", "answer"),
    [
        *((address, {}, 200) for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")),
        *((each, {"HTTP_HOST": "localhost"}, 403) for each in ("192.168.1.7", "172.17.0.1", "2001:db8::1", "", "x")),
        ("127.0.0.1", {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 403),
    ],
)
def test_this_machine_alone_is_answered(address: str, headers: dict[str, str], answer: int) -> None:
    assert status(REMOTE_ADDR=address, **headers) == answer


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"DJANGO_SECRET_KEY": KEYS["DJANGO_SECRET_KEY"]}, True),
        ({"SWITCHYARD_PAYMENT_SECRET": KEYS["SWITCHYARD_PAYMENT_SECRET"]}, True),
        (KEYS, False),
    ],
)
def test_one_fixed_key_is_enough(environ: dict[str, str], expected: bool) -> None:
    assert load(environ).has_development_keys is expected
