from __future__ import annotations

import pytest
from django.test import RequestFactory

from switchyard.operations.views import may_scrape

TOKEN = "a-token-of-the-operator"


@pytest.mark.parametrize(
    ("address", "headers", "allowed"),
    [
        ("127.0.0.1", {}, True),
        ("127.8.9.10", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("192.0.2.7", {}, False),
        ("10.0.0.1", {}, False),
        ("", {}, False),
        ("testclient", {}, False),
        ("127.0.0.1", {"HTTP_X_FORWARDED_FOR": "192.0.2.7"}, False),
        ("127.0.0.1", {"HTTP_X_FORWARDED_FOR": ""}, False),
        ("127.0.0.1", {"HTTP_FORWARDED": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"HTTP_X_REAL_IP": "127.0.0.1"}, False),
        ("127.0.0.1", {"HTTP_VIA": "1.1 proxy"}, False),
        ("127.0.0.1", {"HTTP_X_FORWARDED_SERVER": "proxy"}, False),
        ("127.0.0.1", {"HTTP_X_FORWARDED_PORT": "443"}, False),
        ("127.0.0.1", {"HTTP_X_FORWARDED": "for=192.0.2.7"}, False),
        ("127.0.0.1", {"HTTP_X_CLIENT_IP": "192.0.2.7"}, False),
        ("127.0.0.1", {"HTTP_TRUE_CLIENT_IP": "192.0.2.7"}, False),
        ("127.0.0.1", {"HTTP_CF_CONNECTING_IP": "192.0.2.7"}, False),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, True),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": f"bearer {TOKEN}"}, True),
        ("127.0.0.1", {"HTTP_VIA": "1.1 proxy", "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, True),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": f"Basic {TOKEN}"}, False),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}x"}, False),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": "Bearer"}, False),
        ("192.0.2.7", {"HTTP_AUTHORIZATION": "Bearer \u00fc"}, False),
    ],
)
def test_loopback_or_the_token(address: str, headers: dict[str, str], allowed: bool) -> None:
    request = RequestFactory(REMOTE_ADDR=address).get("/metrics", **headers)

    assert may_scrape(request, TOKEN) is allowed


@pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer x"])
def test_no_token_set_lets_no_token_in(given: str) -> None:
    request = RequestFactory(REMOTE_ADDR="192.0.2.7").get("/metrics", HTTP_AUTHORIZATION=given)

    assert not may_scrape(request, "")
