"""Webhook endpoints on the demo's own receiver: one that works, and three that do not, each in its way."""

from __future__ import annotations

import http
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.client import Client
from demo.private_files import read_private, write_private
from demo.sample.sender import Sender


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an endpoint answers, and the event it subscribes to."""

    kind: str
    path: str
    event: str
    deliveries: int


BEHAVIOURS = (
    Behaviour("broken", "/broken", "customer.created", 1),
    Behaviour("flaky", "/flaky", "report.ready", 2),
    Behaviour("gone", "/gone", "customer.deleted", 1),
    Behaviour("healthy", "/healthy", "invoice.paid", 4),
)


def register(client: Client, receiver: str, kept: Path) -> None:
    """Register the endpoints that are not registered yet.

    Args:
        receiver: Root of the demo's receiver.
        kept: File that remembers, over restarts, which are.

    Raises:
        RequestFailed: the API did not take one.
    """
    known = read_private(kept)
    for behaviour in BEHAVIOURS:
        url = receiver + behaviour.path
        # The endpoint that is gone was disabled by its own answer, so it needs to be registered for every run.
        if behaviour.kind != "gone" and known.get(behaviour.kind, {}).get("url") == url:
            continue
        body = {"url": url, "events": [behaviour.event]}
        made = client.ask("POST", "/api/v1/webhooks/endpoints", expect=http.HTTPStatus.CREATED, body=body)
        known[behaviour.kind] = {"url": url, **made}
        write_private(kept, known)


def deliveries(sender: Sender, receiver: str, kept: Path) -> Iterator[str]:
    """Register the endpoints where they are missing, and send the events they wait for; arguments as above."""
    register(sender.client, receiver, kept)
    for behaviour in BEHAVIOURS:
        for number in range(1, behaviour.deliveries + 1):
            title = f"Webhook {behaviour.event} to the {behaviour.kind} endpoint"
            payload = {"number": number, "run": sender.run}
            yield from sender.event(f"webhook_{behaviour.kind}", title, behaviour.event, payload)
