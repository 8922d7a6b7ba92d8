import functools
import threading
from typing import Any

import pytest

from apps.webhooks import services
from apps.webhooks.models import Delivery, Endpoint, Event
from apps.webhooks.receiver import Receiver
from tests.factories.callers import Caller
from tests.integration.outbound.conftest import allow as allow

OWNER = "user:1"


@pytest.fixture
def receiver(settings, tmp_path):
    """The demo's receiver, allowed although on loopback, with a file of secrets."""
    with Receiver(secrets_file=tmp_path / "secrets", log_file=tmp_path / "log") as running:
        settings.ALLOWED_PRIVATE_ADDRESSES = frozenset({("127.0.0.1", running.server_address[1])})
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.stop()
        thread.join(30)


@pytest.fixture
def make_delivery(db):
    """Make a delivery of an event to a new endpoint at a URL."""

    def make(url: str, **endpoint: Any) -> Delivery:
        target, _ = services.create_endpoint(OWNER, url, ["invoice.paid"])
        Endpoint.objects.filter(pk=target.pk).update(**endpoint)
        event = Event.objects.create(owner_key=OWNER, type="invoice.paid", payload='{"number":1}')
        return Delivery.objects.create(event=event, endpoint=target, job_id="")

    return make


@pytest.fixture
def post(db):
    """Send JSON to the API as ``ada``: ``post("/webhooks/events", body)``; other users by name."""
    caller = functools.cache(Caller)
    return lambda path, body, *, user="ada": caller(user).post(path, body)
