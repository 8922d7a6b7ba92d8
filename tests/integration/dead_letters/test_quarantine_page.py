"""The page of quarantined messages, which is short however many there are and however long they are."""

from __future__ import annotations

import re

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.dead_lists import Quarantine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("facilities")]
PAGE = reverse("switchyard-quarantine")


def put(queue: str, *, count: int, raw: bytes = b"{" + b"x" * 5_000, error: str = "it is not JSON") -> list[str]:
    """Put messages into the quarantine; return their ids, newest first."""
    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)
    ids = [f"{queue}-{number}" for number in range(count)]
    for id_ in ids:
        entry = Quarantine.entry(queue, raw, error, message_id=id_)
        broker.client.lpush(broker.keys.queue(queue).quarantine, entry)
    return ids[::-1]


def ids_of(page: str) -> list[str]:
    return re.findall(r'Id <code class="sy-code">(.*?)</code>', page)


def test_many_long_messages_make_a_short_page(client: Client) -> None:
    put("default", count=100, error="e" * 100_000)

    page = client.get(PAGE).content

    assert len(page) < 100_000


def test_pages_show_every_message_of_every_queue_once(client: Client) -> None:
    ids = [id_ for queue, count in (("urgent", 20), ("default", 20)) for id_ in put(queue, count=count)]
    seen, address = [], PAGE

    while address:
        page = client.get(address).content.decode()
        seen.append(ids_of(page))
        found = re.search(r'href="(\?after=[^"]*)"', page)
        address = PAGE + found[1] if found else ""

    assert [len(part) for part in seen] == [20, 20]
    assert sorted(id_ for part in seen for id_ in part) == sorted(ids)
