"""The filter of letters refuses what no database can compare; the page of quarantined messages is short."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.dead_letters import bulk_moves
from switchyard.dead_letters.projection import project
from tests.factories.letters import letter

pytestmark = pytest.mark.django_db

PAGE = reverse("switchyard-quarantine")


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({"fingerprint": "f\0"}, "fingerprint: 'f\\x00' has a NUL character"),
        ({"search": "\0"}, "search: '\\x00' has a NUL character"),
        ({"search": "a " * 51}, "search: more than 50 words"),
        ({"died_since": "yesterday"}, "died_since: 'yesterday' is not a time"),
        ({"died_until": "2026-13-01"}, "died_until: '2026-13-01' is not a time"),
    ],
)
def test_value_that_cannot_be_compared_is_refused(filter: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        bulk_moves.check(filter)

    assert words in str(refused.value)
    assert bulk_moves.of_list(filter) is None


def test_most_words_are_one_expression_that_the_database_takes() -> None:
    wanted = bulk_moves.check({"search": "a " * bulk_moves.MOST_WORDS})

    assert bulk_moves.matching(wanted).count() == 0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-25T18:41", "2026-11-25T18:41:00.000Z"),
        ("2026-11-25 18:41:00.5+01:00", "2026-11-25T17:41:00.500Z"),
        ("0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_without_a_zone_is_utc_and_all_are_stored_in_one_form(text: str, at: str) -> None:
    assert bulk_moves.check({"died_since": text}) == {"died_since": at}
    assert bulk_moves.of_list({"died_at__lt": text}) == {"died_until": at}


def test_the_list_and_the_acts_of_a_group_take_a_time(admin_client: Client) -> None:
    """Only those of the group that died in the hour are listed, counted and hit by the button."""
    for hour in (11, 12, 13):
        project(letter(died_at=int(datetime(2026, 11, 25, hour, 30, tzinfo=UTC).timestamp() * 1000)))
    project(letter(fingerprint="other", died_at=int(datetime(2026, 11, 25, 12, 30, tzinfo=UTC).timestamp() * 1000)))
    query = {"fingerprint": "f00dfacef00dface", "died_at__gte": "2026-11-25T12:00", "died_at__lt": "2026-11-25T13:00"}

    page = admin_client.get(reverse("switchyard-letters"), query).content.decode()
    whole = admin_client.get(reverse("switchyard-letters"), {"fingerprint": "f00dfacef00dface"}).content.decode()
    link = re.search(r'href="([^"]*letter\.requeue[^"]*)"', page)

    assert "1 letter matches" in page and "Requeue all 1…" in page
    assert 'value="2026-11-25T12:00"' in page and 'name="fingerprint" value="f00dfacef00dface"' in page
    assert "Died from (UTC)" in whole
    assert link is not None
    asked = admin_client.get(link[1].replace("&amp;", "&")).content.decode()
    assert "Requeue 1 dead letter?" in asked and "2026-11-25T12:00:00.000Z" in asked
    # The form's own button leads there at once.
    form = {
        "fingerprint": "f00dfacef00dface",
        "q": "",
        "actor": "",
        "died_at__gte": "2026-11-25T12:00",
        "died_at__lt": "",
    }
    begin = reverse("switchyard-bulk-begin", args=["letter.requeue"])
    assert f'formaction="{begin}"' in page
    assert "Requeue 2 dead letters?" in admin_client.get(begin, form).content.decode()


def test_the_filter_lists_names_as_they_are_and_reasons_in_words(admin_client: Client) -> None:
    name = next(name for name in sorted(dramatiq.get_broker().actors) if "_" in name)

    page = admin_client.get(reverse("switchyard-letters")).content.decode()

    assert f'<option value="{name}">{name}</option>' in page
    assert '<option value="time_limit">time limit</option>' in page


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


@pytest.mark.usefixtures("facilities")
def test_many_long_messages_make_a_short_page(client: Client) -> None:
    put("default", count=100, error="e" * 100_000)

    page = client.get(PAGE).content

    assert len(page) < 100_000


@pytest.mark.usefixtures("facilities")
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
