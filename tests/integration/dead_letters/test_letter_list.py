"""The filter of letters refuses what no database can compare; the page of quarantined messages is short."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import dramatiq
import pytest
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.broker.stores.dead_lists import Quarantine
from switchyard.bulk import runner, services
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters import acts, bulk_moves, projection, views
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.projection import project
from switchyard.dead_letters.queries import groups
from tests.factories.letters import letter
from tests.factories.staff import staff
from tests.integration.bulk.conftest import finished
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
PAGE, LIST = reverse("switchyard-quarantine"), reverse("switchyard-letters")


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
def test_value_that_cannot_be_compared_is_refused(filter, words):
    with pytest.raises(ValueError) as refused:
        bulk_moves.check(filter)

    assert words in str(refused.value)
    assert bulk_moves.of_list(filter) is None


def test_most_words_are_one_expression_that_the_database_takes():
    assert bulk_moves.matching(bulk_moves.check({"search": "a " * bulk_moves.MOST_WORDS})).count() == 0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-25T18:41", "2026-11-25T18:41:00.000Z"),
        ("2026-11-25 18:41:00.5+01:00", "2026-11-25T17:41:00.500Z"),
        ("0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_without_a_zone_is_utc_and_all_are_stored_in_one_form(text, at):
    assert bulk_moves.check({"died_since": text}) == {"died_since": at}
    assert bulk_moves.of_list({"died_at__lt": text}) == {"died_until": at}


def test_the_list_and_the_acts_of_a_group_take_a_time(admin_client):
    """Only those of the group that died in the hour are listed, counted and hit by the button."""
    for hour in (11, 12, 13):
        project(letter(died_at=int(datetime(2026, 11, 25, hour, 30, tzinfo=UTC).timestamp() * 1000)))
    project(letter(fingerprint="other", died_at=int(datetime(2026, 11, 25, 12, 30, tzinfo=UTC).timestamp() * 1000)))
    query = {"fingerprint": "f00dfacef00dface", "died_at__gte": "2026-11-25T12:00", "died_at__lt": "2026-11-25T13:00"}

    page = admin_client.get(LIST, query).content.decode()
    whole = admin_client.get(LIST, {"fingerprint": "f00dfacef00dface"}).content.decode()
    link = re.search(r'href="([^"]*letter\.requeue[^"]*)"', page)

    assert "1 letter matches" in page and "Requeue all 1…" in page
    assert 'value="2026-11-25T12:00"' in page and 'name="fingerprint" value="f00dfacef00dface"' in page
    assert "Died from (UTC)" in whole
    asked = admin_client.get(link[1].replace("&amp;", "&")).content.decode()
    assert "Requeue 1 dead letter?" in asked and "2026-11-25T12:00:00.000Z" in asked
    # The form's own button leads there at once.
    form = query | {"q": "", "actor": "", "died_at__lt": ""}
    begin = reverse("switchyard-bulk-begin", args=["letter.requeue"])
    assert f'formaction="{begin}"' in page
    assert "Requeue 2 dead letters?" in admin_client.get(begin, form).content.decode()


def test_the_filter_lists_names_as_they_are_and_reasons_in_words(admin_client):
    name = next(name for name in sorted(dramatiq.get_broker().actors) if "_" in name)

    page = admin_client.get(LIST).content.decode()

    assert f'<option value="{name}">{name}</option>' in page
    assert '<option value="time_limit">time limit</option>' in page


def put(queue: str, *, count: int, raw: bytes = b"{" + b"x" * 5_000, error: str = "it is not JSON") -> list[str]:
    """Put messages into the quarantine; return their ids, newest first."""
    broker = dramatiq.get_broker()
    ids = [f"{queue}-{number}" for number in range(count)]
    for id_ in ids:
        entry = Quarantine.entry(queue, raw, error, message_id=id_)
        broker.client.lpush(broker.keys.queue(queue).quarantine, entry)
    return ids[::-1]


def ids_of(page: str) -> list[str]:
    return re.findall(r'Id <code class="sy-code">(.*?)</code>', page)


@pytest.mark.usefixtures("facilities")
def test_many_long_messages_make_a_short_page(client):
    put("default", count=100, error="e" * 100_000)

    assert len(client.get(PAGE).content) < 100_000


@pytest.mark.usefixtures("facilities")
def test_pages_show_every_message_of_every_queue_once(client):
    ids = [id_ for queue, count in (("urgent", 20), ("default", 20)) for id_ in put(queue, count=count)]
    seen, address = [], PAGE

    while address:
        page = client.get(address).content.decode()
        seen.append(ids_of(page))
        found = re.search(r'href="(\?after=[^"]*)"', page)
        address = PAGE + found[1] if found else ""

    assert [len(part) for part in seen] == [20, 20]
    assert sorted(id_ for part in seen for id_ in part) == sorted(ids)


EVIL = "<script>alert(1)</script>"


@pytest.fixture
def reader(db):
    """May look, nothing else."""
    return staff("view_deadletter", name="reader")


def page_of(row: DeadLetter) -> str:
    return reverse("switchyard-letter", args=[row.pk])


def one(row: DeadLetter, act: str) -> str:
    return reverse("switchyard-letter-act", args=[row.pk, act])


def mirrored(made: Letter) -> DeadLetter:
    projection.project_or_log(made)
    return DeadLetter.objects.get(message_id=made.id)


def test_list_counts_bugs_and_shows_open_letters_only(bury, client):
    mirrored(bury(error="the open one"))
    mirrored(bury(error="the other one", fingerprint="beef"))
    acts.act_on(mirrored(bury(error="the discarded one")), "discard", by="a.lind")

    page = client.get(LIST).content.decode()

    assert "2 open dead letters are 2 bugs" in page and "the open one" in page and "the discarded one" not in page
    assert "the discarded one" in client.get(LIST, {"state": "all"}).content.decode()


@pytest.mark.parametrize(
    "query", ["?q=vat_rate", "?queue=default&reason=exhausted", "?died_at__gte=2026-01-01T00:00:00Z", "?o=-6"]
)
def test_list_can_be_searched_filtered_and_sorted(bury, client, query):
    mirrored(bury())

    answer = client.get(LIST + query)

    assert answer.status_code == 200
    assert "KeyError: &#x27;vat_rate&#x27;" in answer.content.decode()


def test_detail_shows_traceback_payload_and_history_escaped(bury, client):
    message = {**bury().message, "kwargs": {"number": EVIL, "address": "ada"}}
    row = mirrored(bury(exception=EVIL, error=EVIL, traceback=EVIL, message=message))
    acts.act_on(row, "acknowledge", by="a.lind", reason=EVIL)

    page = client.get(page_of(row)).content.decode()

    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "[redacted]" in page and ">ada<" not in page


def test_detail_offers_what_the_user_may_do(bury, client, reader):
    row = mirrored(bury())

    full, poor = (who.get(page_of(row)).content.decode() for who in (client, reader))

    assert all(word in full for word in ("Requeue letter", "Discard letter…", "Acknowledge"))
    assert not any(word in poor for word in ("Requeue letter", "Discard letter…", "Acknowledge"))


def test_arguments_are_shown_to_who_may_view_them(bury, client, reader):
    row = mirrored(bury(message={**bury().message, "kwargs": {"number": "argument-7731"}}))

    full, poor = (who.get(page_of(row)).content.decode() for who in (client, reader))

    assert "argument-7731" in full and "argument-7731" not in poor
    assert "switchyard_jobs.view_arguments" in poor


@pytest.mark.django_db(transaction=True)
def test_bytes_in_the_quarantine_are_shown_to_who_may_view_arguments_but_redacted_ones(
    facilities, run_worker, client, reader
):
    body = b'{"actor":"send_welcome_mail","sent_at":1,"args":["ada@yard.example"],"options":{"newer":7}}'
    cast(RedisBroker, dramatiq.get_broker()).families["default"].enqueue([Entry("newer", body)])
    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").quarantined)

    full, poor = (who.get(PAGE).content.decode() for who in (client, reader))

    assert "000000  7b 22 61 63 74 6f 72" in full and "7b 22 61 63" not in poor
    assert "61 64 61 40" not in full  # the actor redacts the address
    assert "switchyard_jobs.view_arguments" in poor and "newer" in poor


def test_requeue_button_requeues(bury, client, facilities):
    row = mirrored(bury())

    assert "Requeued 1 dead letter." in client.post(one(row, "requeue"), follow=True).content.decode()
    assert facilities.transport.stats("default").live.waiting == 1
    assert "<strong>Requeue" in client.get(page_of(row)).content.decode()


def test_discard_asks_first_and_wants_a_reason(bury, client, facilities):
    row = mirrored(bury())

    asked = client.get(one(row, "discard")).content.decode()
    unexplained = client.post(one(row, "discard"))
    assert "It will never run." in asked
    assert "enter a reason" in unexplained.content.decode()
    assert facilities.transport.stats("default").dead == 1

    client.post(one(row, "discard"), {"reason": "duplicate"})

    row.refresh_from_db()
    assert (row.state, row.history[-1]["note"]) == ("discarded", "duplicate")


def test_ticked_letters_are_named_before_a_bulk_act_on_them_and_no_others(bury, client, facilities):
    rows = [mirrored(bury()) for _ in range(3)]
    address = reverse("switchyard-bulk-begin", args=["letter.requeue"])
    listed = client.get(LIST, {"queue": "default"}).content.decode()
    assert f'formaction="{address}"' in listed and f'name="letter" value="{rows[0].pk}"' in listed
    assert "none was chosen" in client.get(address, {"letter": ""}).content.decode()
    for wrong in ("1,x", ",".join(map(str, range(1, 1_002)))):
        assert "the keys of at most 1,000 letters" in client.get(address, {"letter": wrong}).content.decode()

    chosen = f"{address}?letter=&letter={rows[0].pk}&letter={rows[1].pk}"
    assert "Requeue 2 dead letters?" in client.get(chosen).content.decode()
    assert facilities.transport.stats("default").dead == 3
    client.post(chosen, {"count": "2"})
    act = finished(BulkAct.objects.get())

    assert (act.state, act.done, facilities.transport.stats("default").dead) == ("done", 2, 1)
    rows[2].refresh_from_db()
    assert rows[2].state == "new"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_group_is_acknowledged_by_a_bulk_act_and_what_was_known_stays_so(bury, interrupted):
    rows = [mirrored(bury()) for _ in range(3)]
    acts.act_on(rows[0], "acknowledge", by="a.lind")
    act = services.start("letter.acknowledge", {"fingerprint": rows[0].fingerprint}, who=Who("m.keller", "page"))
    if interrupted:
        begun = runner.begin(act.pk, act.run)
        kind_of(act.kind).apply(begun[0], begun[0].hand[:1], repeated=False)

    act = finished(act)
    assert (act.state, act.total, act.done, act.skips) == ("done", 2, 2, {})
    assert [(row.state, row.state_by) for row in DeadLetter.objects.order_by("pk")] == [
        ("acknowledged", "a.lind"), ("acknowledged", "m.keller"), ("acknowledged", "m.keller"),
    ]  # fmt: skip


def test_groups_name_error_frame_trend_and_lead_to_their_letters(bury, client):
    row = mirrored(bury(error="no <b>rate</b>"))

    page = client.get(LIST).content.decode()

    assert "no &lt;b&gt;rate" in page and "1 in the last 2 h" in page
    assert f'href="?fingerprint={row.fingerprint}">Triage 1…' in page
    assert "result_list" not in page, "letters are listed where a filter asks for them"


NOW = timezone.now()


def row(minute: int) -> DeadLetter:
    project(letter(died_at=int((NOW - timedelta(minutes=100 - minute)).timestamp() * 1_000)))
    return DeadLetter.objects.latest("pk")


def walk(client: Client, query: dict[str, str], between: Callable[[], object] = lambda: None) -> list[list[DeadLetter]]:
    """Return the letters of each page; ``between`` runs after the first one."""
    page = client.get(LIST, query)
    pages = [list(page.context["listed"]["rows"])]
    between()
    while link := page.context["listed"]["after_link"]:
        page = client.get(LIST + link)
        pages.append(list(page.context["listed"]["rows"]))
    return pages


@pytest.mark.parametrize("offset", ["+14:00", "-14:00"])
def test_a_place_beyond_all_times_leads_to_the_first_page(client, offset):
    row(1)
    at = f"{'0001-01-01T00:00:00' if offset[0] == '+' else '9999-12-31T23:59:59'}{offset}"

    answer = client.get(LIST, {"after": f"{at}~5"})

    assert (answer.status_code, answer.headers["Location"]) == (302, LIST)


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_bars_are_drawn_whatever_zone_the_database_has(zone, monkeypatch):
    kept = vars(connections["default"])
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", zone)
    for name in ("timezone", "timezone_name"):
        kept.pop(name, None)
    for minute in (1, 97, 98):
        row(minute)

    (group,) = views.rows_of(groups())

    drawn = [bar for bar in group["bars"] if bar["kind"] == "trend"]
    assert group["words"] == "3 in the last 2 h" and len(drawn) in (2, 3)
    for name in ("timezone", "timezone_name"):
        kept.pop(name, None)


def test_the_next_page_goes_on_behind_the_last_letter(client, monkeypatch):
    monkeypatch.setattr(views, "PER_PAGE", 3)
    rows = [row(minute) for minute in (1, 2, 3, 3, 3, 4, 5)]

    newest = walk(client, {"state": "open"}, between=lambda: row(60))

    assert [one for page in newest for one in page] == rows[::-1]
    assert [len(page) for page in newest] == [3, 3, 1]


def test_of_many_letters_the_page_says_that_there_are_more(client, monkeypatch):
    monkeypatch.setattr(views, "MOST_COUNTED", 4)
    monkeypatch.setattr(views, "PER_PAGE", 3)
    for minute in range(6):
        row(minute)

    assert "More than 4 letters match" in client.get(LIST, {"state": "open"}).content.decode()


@pytest.mark.sqlite
def test_lists_and_counts_of_a_state_use_its_index(client):
    def plan(sql: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            return " ".join(str(step[3]) for step in cursor.fetchall())

    table, discarded = DeadLetter._meta.db_table, "WHERE state = 'discarded'"

    assert "dead_letter_states" in plan(f"SELECT COUNT(*) FROM (SELECT 1 FROM {table} {discarded} LIMIT 10001)")
    listed = plan(f"SELECT * FROM {table} {discarded} ORDER BY died_at DESC, id DESC LIMIT 51")
    assert "dead_letter_states" in listed and "TEMP B-TREE" not in listed
