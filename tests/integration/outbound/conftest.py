from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.integration.outbound.listener import Listener


@pytest.fixture
def allow(settings) -> Callable[[Listener], str]:
    """Let requests reach a listener although it is on loopback; returns its URL."""

    def let(listener: Listener) -> str:
        allowed = settings.SWITCHYARD.allowed_private_addresses | {("127.0.0.1", listener.port)}
        settings.SWITCHYARD = dataclasses.replace(settings.SWITCHYARD, allowed_private_addresses=allowed)
        return listener.url

    return let
