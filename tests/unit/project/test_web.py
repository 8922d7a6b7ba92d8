"""Headers of pages, static files, and who is answered with the fixed keys of development."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, RequestFactory, override_settings

from project.config import load
from project.middleware import POLICY, content_security, loopback_only

PATHS = ["/static/none.css", "/static/../project/settings.py", "/static/%2e%2e/%2e%2e/manage.py", "/static/"]


@pytest.mark.parametrize("path", PATHS)
@override_settings(DEBUG=True, STATIC_URL="/static/")
def test_a_missing_static_file_is_404(path: str) -> None:
    answer = async_to_sync(AsyncClient(raise_request_exception=False).get)(path)

    assert answer.status_code == 404
    assert b"payment_secret" not in answer.content


def test_a_static_file_is_served() -> None:
    answer = async_to_sync(AsyncClient().get)("/static/switchyard_operations/room.css")

    assert answer.status_code == 200


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


def policy_of(response: HttpResponse) -> str:
    answer = content_security(lambda request: response)(RequestFactory().get("/"))
    return str(answer.get("Content-Security-Policy", ""))


def test_a_page_gets_the_policy() -> None:
    assert policy_of(HttpResponse("<p>")) == POLICY
    assert "object-src 'none'" in POLICY


def test_what_is_no_page_or_has_its_own_policy_is_left_alone() -> None:
    own = HttpResponse("<p>", headers={"Content-Security-Policy": "default-src 'none'"})

    assert policy_of(HttpResponse("{}", content_type="application/json")) == ""
    assert policy_of(own) == "default-src 'none'"
