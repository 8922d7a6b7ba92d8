import pytest

from tests.integration.outbound.listener import Listener


@pytest.fixture
def allow(settings):
    """Let requests reach a listener although it is on loopback; returns its URL."""

    def let(listener: Listener) -> str:
        allowed = settings.ALLOWED_PRIVATE_ADDRESSES | {("127.0.0.1", listener.port)}
        settings.ALLOWED_PRIVATE_ADDRESSES = allowed
        return listener.url

    return let
