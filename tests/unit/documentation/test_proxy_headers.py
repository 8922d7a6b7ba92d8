"""The page on compose warns of proxies that append to a client's ``X-Forwarded-For``: what the web makes of it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.unit.documentation.pages import read

[PROXY_NETWORKS] = re.findall(r"FORWARDED_ALLOW_IPS:-([^}]+)\}", read("ops/compose.yaml"))
GATEWAY, CLIENT, CLAIMED = "172.18.0.1", "192.168.1.5", "203.0.113.7"


def address(forwarded: str, trusted: str) -> str:
    """Return the address that the web takes for the client's."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    headers = [(b"x-forwarded-for", forwarded.encode())]
    scope: Any = {"type": "http", "scheme": "http", "client": (GATEWAY, 1), "headers": headers}
    nothing: Any = None
    asyncio.run(ProxyHeadersMiddleware(app, trusted)(scope, nothing, nothing))
    return seen[0]


@pytest.mark.parametrize(
    ("forwarded", "trusted", "taken"),
    [
        (CLIENT, PROXY_NETWORKS, CLIENT),
        (f"{CLAIMED}, {CLIENT}", PROXY_NETWORKS, CLAIMED),  # what the page warns of
        (f"{CLAIMED}, {CLIENT}", GATEWAY, CLIENT),
    ],
)
def test_the_address_of_a_client_in_a_trusted_network(forwarded: str, trusted: str, taken: str) -> None:
    assert address(forwarded, trusted) == taken
