"""Rows of the overview and their words, rates of queues, pages of stacks, and who may read metrics."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import RequestFactory
from dramatiq.message import Message

from switchyard.broker.admin.browse import SeenMessage
from switchyard.broker.health.servers import AwayPart
from switchyard.broker.queue.codec import encode
from switchyard.broker.shapes import Page
from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.operations import overview
from switchyard.operations.findings import facts as finding_facts
from switchyard.operations.findings import lateness, pools
from switchyard.operations.findings.facts import YardFacts
from switchyard.operations.findings.pools import own_frame, shown_stacks
from switchyard.operations.overview import KeptFacts, most_held, shown_row
from switchyard.operations.queries import QueueSnapshot, Rates, YardState, between, note
from switchyard.operations.rows import AWAY, PROMISE_X, Row, draw, yard_rows
from switchyard.operations.supervisors import ServerState
from switchyard.operations.templatetags.humanize_room import code_marks
from switchyard.operations.views import may_scrape
from tests.unit.operations.yards import YARD, down, facts, lane, pool, state

pytestmark = pytest.mark.usefixtures("small_yard")
FRAMES = [
    *("/usr/lib/python3.11/socket.py:718 readinto", "django/db/models/sql/query.py:1680 _add_q"),
    *("apps/webhooks/delivering.py:52 deliver", "dramatiq/worker.py:560 process_message"),
]
TASK = Stack("thread", FRAMES)
IDLE = Stack("running thread", ["/usr/lib/python3.11/threading.py:327 wait", "switchyard/workers/child/main.py:9 run"])
TOKEN = "a-token-of-the-operator"
WRONG = (f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \u00fc")
# Headers of proxies, of which each says that the request came from elsewhere.
FORWARDED = (
    ("HTTP_X_FORWARDED_FOR", "192.0.2.7"),
    ("HTTP_X_FORWARDED_FOR", ""),
    ("HTTP_FORWARDED", "for=127.0.0.1"),
    ("HTTP_X_REAL_IP", "127.0.0.1"),
    ("HTTP_VIA", "1.1 proxy"),
    ("HTTP_X_FORWARDED_SERVER", "proxy"),
    ("HTTP_X_FORWARDED_PORT", "443"),
    ("HTTP_X_FORWARDED", "for=192.0.2.7"),
    ("HTTP_X_CLIENT_IP", "192.0.2.7"),
    ("HTTP_TRUE_CLIENT_IP", "192.0.2.7"),
    ("HTTP_CF_CONNECTING_IP", "192.0.2.7"),
)


def row(name: str, now: YardState | None) -> Row:
    return next(row for row in yard_rows(YARD, now) if row.name == name)


def test_rows_are_queues_retry_lanes_and_the_shared_pool_with_dead_letters_where_a_lane_ends():
    names = [(row.name, row.kind) for row in yard_rows(YARD, state())]

    assert names == [("mail", "queue"), ("hooks", "queue"), ("hooks-retry", "lane"), ("retries", "pool")]
    assert names == [(row.name, row.kind) for row in yard_rows(YARD, None)]
    found = row("retries", state(retry=lane("mail-retry", 2, scheduled=5, age_ms=70)))

    assert (found.waiting, found.held, found.oldest_age_ms, found.state.word) == (2, 5, 70, "Flowing")
    assert row("mail", state(retry=lane("mail-retry", 2, scheduled=5))).retrying == 7
    assert row("mail", state(dead=3)).dead == 3
    assert (row("hooks", state()).dead, row("hooks-retry", state()).dead) == (None, 0)
    assert not row("mail", state(dead=3)).folds


@pytest.mark.parametrize(
    ("now", "word", "level", "signal"),
    [
        (state(), "Quiet", "calm", "open"),
        (state(lane("mail", 3, age_ms=900)), "On time", "ok", "open"),
        (state(lane("mail", 3, age_ms=3_000)), "Late", "warn", "open"),
        (state(lane("mail", 3, age_ms=41_000)), "Late", "bad", "open"),
        (state(lane("mail", 3, age_ms=41_000), paused=True), "Paused", "warn", "paused"),
        (state(lane("mail", 3, age_ms=41_000), down("mail")), "No pool", "bad", "cross"),
        (state(lane("mail", scheduled=3), down("mail")), "No pool", "bad", "cross"),
        (state(None, down("mail")), "No pool", "warn", "cross"),
        (state(lane("mail", 3), down("mail", "starting")), "No pool", "warn", "cross"),
        (state(lane("mail", 3, age_ms=41_000), pool("mail", quieted=1)), "Quieted", "bad", "paused"),
        (state(None, pool("mail", quieted=1)), "Quieted", "warn", "paused"),
        (state(lane("mail", 3, age_ms=9), pool("mail", supervisors=2, quieted=1)), "On time", "ok", "open"),
        (None, "Unknown", "calm", "unknown"),
    ],
)
def test_state_words(now, word, level, signal):
    found = row("mail", now)

    assert (found.state.word, found.state.level, found.signal) == (word, level, signal)


@pytest.mark.parametrize(("age_ms", "past"), [(1, False), (999, False), (1_500, True), (10_000_000, True)])
def test_train_crosses_the_promise_only_when_it_is_broken(age_ms, past):
    marks = draw(row("mail", state(lane("mail", 5, age_ms=age_ms)))).train

    assert marks
    assert any(kind == "past" for _, _, kind in marks) is past
    assert all((x < PROMISE_X) == (kind == "past") for x, _, kind in marks)
    assert min(x for x, _, _ in marks) >= 0


def test_a_queue_whose_node_is_away_is_told_apart_from_the_others():
    now = state()
    part = replace(now, queues=now.queues[1:], server=ServerState(away=AwayPart(("n:1",), ("mail",))))

    assert (row("mail", part).state, row("mail", part).waiting) == (AWAY, None)
    assert (row("hooks", part).state.word, row("retries", part).waiting) == ("Quiet", 0)


def test_pools_whose_reports_are_unknown_are_not_called_missing():
    unknown = replace(
        state(lane("mail", 3, age_ms=10), down("mail"), down("retries")), server=ServerState(pools_known=False)
    )

    found = row("mail", unknown)

    assert (found.state.word, found.signal, found.slots_known) == ("On time", "open", False)
    assert (draw(found).slots, row("retries", unknown).state.word) == ((), "Quiet")
    assert not list(pools.look_at_absence(facts(unknown)))
    assert list(pools.look_at_absence(facts(replace(unknown, server=ServerState()))))


def test_stacks_of_tasks_come_first_with_their_own_frames_and_a_line_where_they_agree():
    (child,) = shown_stacks([ChildStacks(7, [IDLE, TASK])])

    [task] = child["tasks"]
    assert task["does"] == "runs a task"
    assert [text for text, is_own in task["frames"] if is_own] == ["apps/webhooks/delivering.py:52 deliver"]
    assert task["frames"][0][0] == "socket.py:718 readinto"
    task = Stack("thread", ["re/__init__.py:176 search", "apps/mail/actors.py:9 send"])
    other = Stack("thread", ["apps/mail/actors.py:10 send"])

    assert own_frame([TASK]) == own_frame([TASK, IDLE, Stack("thread")]) == "apps/webhooks/delivering.py:52 deliver"
    assert own_frame([task, task]) == "apps/mail/actors.py:9 send"
    assert own_frame([task, other]) == own_frame([IDLE]) == own_frame([]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `kill -CONT 1`.", 'run <code class="sy-code">kill -CONT 1</code>.'),
        ("of ``YYYY-MM``", 'of <code class="sy-code">YYYY-MM</code>'),
        ("<b>`<i>`", '&lt;b&gt;<code class="sy-code">&lt;i&gt;</code>'),
        ("one ` alone <b>", "one ` alone &lt;b&gt;"),
    ],
)
def test_backticks_are_code_and_everything_is_escaped(text, shown):
    assert code_marks(text) == shown


@pytest.mark.parametrize(
    ("address", "headers", "allowed"),
    [
        *((address, {}, True) for address in ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1")),
        *((address, {}, False) for address in ("192.0.2.7", "10.0.0.1", "", "testclient")),
        *(("127.0.0.1", {header: value}, False) for header, value in FORWARDED),
        *(("192.0.2.7", {"HTTP_AUTHORIZATION": f"{scheme} {TOKEN}"}, True) for scheme in ("Bearer", "bearer")),
        ("127.0.0.1", {"HTTP_VIA": "1.1 proxy", "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, True),
        *(("192.0.2.7", {"HTTP_AUTHORIZATION": wrong}, False) for wrong in WRONG),
    ],
)
def test_loopback_or_the_token(address, headers, allowed):
    assert may_scrape(RequestFactory(REMOTE_ADDR=address).get("/metrics", **headers), TOKEN) is allowed


@pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer x"])
def test_no_token_set_lets_no_token_in(given):
    assert not may_scrape(RequestFactory(REMOTE_ADDR="192.0.2.7").get("/metrics", HTTP_AUTHORIZATION=given), "")


def late(waiting: int = 3, age_ms: int = 3_000) -> Row:
    now = state(lane("mail", waiting, age_ms=age_ms), pool("mail", busy=4))
    return next(row for row in yard_rows(YARD, now) if row.name == "mail")


def of(row: Row) -> YardFacts:
    return YardFacts(state(), (row,), [], {})


def waiting(monkeypatch: pytest.MonkeyPatch, first: list[str], last: list[str]) -> None:
    """Let a queue's head and end hold messages of these owners."""

    def look(family: object, lane: str, place: str, *, cursor: int, limit: int) -> Page[SeenMessage]:
        options: list[dict[str, Any]] = [{"owner": owner} for owner in (last if cursor else first)]
        bodies = [encode(Message("mail", "work", (), {}, each)) for each in options]
        return Page([SeenMessage("7", "mail", "live", "waiting", body) for body in bodies])

    monkeypatch.setattr(finding_facts, "families", lambda queues: [object()])
    monkeypatch.setattr(finding_facts, "look", look)


def test_a_late_queue_whose_slots_an_actor_holds_is_blocked(monkeypatch):
    monkeypatch.setattr(lateness, "late_cause", lambda row, facts: ("export", None))
    row = late()

    found = shown_row(row, of(row))

    assert (found.state.word, found.state.level, found.state.detail) == ("Blocked", "warn", "3.0 × its promise")


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (["acme"] * 100, ["acme"] * 80 + ["globex"] * 20, ("Flooded", "bad", "about 90 % of acme")),
        (["acme"] * 100, ["acme"] * 30 + ["globex"] * 70, ("Flooded", "bad", "100 of the next 100 of acme")),
        (["acme"] * 100, ["acme"] * 100, None),  # nobody else waits behind them
        (["acme"] * 50 + ["globex"] * 50, ["acme"] * 70 + ["globex"] * 30, None),
        ([""] * 100, [""] * 99 + ["acme"], None),
        ([], [], None),
    ],
)
def test_a_late_queue_is_flooded_by_one_owners_jobs_and_not_by_its_only_owner_or_several(
    monkeypatch, first, last, said
):
    waiting(monkeypatch, first, last)
    row = late(waiting=5_000, age_ms=60_000 if said else 3_000)

    found = shown_row(row, of(row)).state

    assert found.word == "Late" if said is None else (found.word, found.level, found.detail) == said


def test_only_a_late_queue_has_slots_that_somebody_holds():
    row = next(row for row in yard_rows(YARD, state()) if row.name == "mail")

    assert (most_held(row, of(row)), most_held(late(), None)) == (("", 0), ("", 0))


def test_done_is_what_ends_in_a_minute():
    now = state()
    known = type(now)(now.queues, now.pools, now.scheduler_up, rates={"mail": Rates(1, 1, 0.5, 60)})

    rows = {row.name: row.done_a_minute for row in yard_rows(YARD, known)}

    assert rows == {"mail": 30, "hooks": None, "hooks-retry": None, "retries": None}


def test_the_last_figures_are_kept_without_a_state_for_an_hour_and_a_yard(monkeypatch):
    kept = KeptFacts()
    assert kept.old_rows() == ((), None)

    kept.keep(facts(state(lane("mail", 3, age_ms=41_000))))
    rows, at = kept.old_rows()
    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(seconds=-1))
    of_an_hour_ago = kept.old_rows()
    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(hours=1))
    monkeypatch.setattr(overview, "declared_yard", lambda: None)

    assert at and next((row.name, row.waiting, row.state.word) for row in rows) == ("mail", 3, "Unknown")
    assert {row.state.word for row in rows} == {"Unknown"}
    assert of_an_hour_ago == kept.old_rows() == ((), None)


def test_arrivals_are_what_is_there_more_and_what_ended_and_rates_need_a_second_of_the_last_minute():
    rates = between(QueueSnapshot(0, issued=100, there=50, leased=8), QueueSnapshot(10, issued=200, there=90, leased=8))

    assert (rates.arrivals, rates.starts, rates.ends, rates.seconds) == (14, 10, 10, 10)
    assert note("unit", QueueSnapshot(0, 0, 0, 0)) is None
    assert note("unit", QueueSnapshot(0.5, 5, 0, 0)) is None
    rates = [note("unit", QueueSnapshot(10, 100, 0, 0)), note("unit", QueueSnapshot(65, 650, 0, 0))]
    assert [rate and rate.seconds for rate in rates] == [10, 55]
    note("emptied", QueueSnapshot(0, 1_000, 0, 0))
    assert note("emptied", QueueSnapshot(10, 5, 0, 0)) is None
