from __future__ import annotations

from django.http import HttpResponse
from django.test import RequestFactory

from project.middleware import POLICY, content_security


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
