"""Rows of the overview, pages of stacks, and who may read metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.test import RequestFactory

from switchyard.broker.health.servers import AwayPart
from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.operations.findings import pools
from switchyard.operations.findings.pools import own_frame, shown_stacks
from switchyard.operations.queries import YardState
from switchyard.operations.rows import AWAY, PROMISE_X, Row, draw, yard_rows
from switchyard.operations.supervisors import ServerState
from switchyard.operations.templatetags.humanize_room import code_marks
from switchyard.operations.views import may_scrape
from tests.unit.operations.yards import YARD, down, facts, lane, pool, state

TASK = Stack(
    "thread",
    [
        "/usr/lib/python3.11/socket.py:718 readinto",
        "django/db/models/sql/query.py:1680 _add_q",
        "apps/webhooks/delivering.py:52 deliver",
        "dramatiq/worker.py:560 process_message",
    ],
)
IDLE = Stack("running thread", ["/usr/lib/python3.11/threading.py:327 wait", "switchyard/workers/child/main.py:9 run"])
TOKEN = "a-token-of-the-operator"


def row(name: str, now: YardState | None) -> Row:
    return next(row for row in yard_rows(YARD, now) if row.name == name)


def test_rows_are_queues_their_own_retry_lanes_and_the_shared_pool_in_order() -> None:
    names = [(row.name, row.kind) for row in yard_rows(YARD, state())]

    assert names == [("mail", "queue"), ("hooks", "queue"), ("hooks-retry", "lane"), ("retries", "pool")]
    assert names == [(row.name, row.kind) for row in yard_rows(YARD, None)]


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
def test_state_words(now: YardState | None, word: str, level: str, signal: str) -> None:
    found = row("mail", now)

    assert (found.state.word, found.state.level, found.signal) == (word, level, signal)


def test_shared_pool_sums_the_lanes_it_works() -> None:
    found = row("retries", state(retry=lane("mail-retry", 2, scheduled=5, age_ms=70)))

    assert (found.waiting, found.held, found.oldest_age_ms, found.state.word) == (2, 5, 70, "Flowing")
    assert row("mail", state(retry=lane("mail-retry", 2, scheduled=5))).retrying == 7


def test_dead_letters_stand_at_the_row_whose_lane_ends_there() -> None:
    assert row("mail", state(dead=3)).dead == 3
    assert (row("hooks", state()).dead, row("hooks-retry", state()).dead) == (None, 0)
    assert not row("mail", state(dead=3)).folds


@pytest.mark.parametrize(("age_ms", "past"), [(1, False), (999, False), (1_500, True), (10_000_000, True)])
def test_train_crosses_the_promise_only_when_it_is_broken(age_ms: int, past: bool) -> None:
    marks = draw(row("mail", state(lane("mail", 5, age_ms=age_ms)))).train

    assert marks
    assert any(kind == "past" for _, _, kind in marks) is past
    assert all((x < PROMISE_X) == (kind == "past") for x, _, kind in marks)
    assert min(x for x, _, _ in marks) >= 0


def test_a_queue_whose_node_is_away_is_told_apart_from_the_others() -> None:
    now = state()
    part = replace(now, queues=now.queues[1:], server=ServerState(away=AwayPart(("n:1",), ("mail",))))

    assert (row("mail", part).state, row("mail", part).waiting) == (AWAY, None)
    assert row("hooks", part).state.word == "Quiet"
    assert row("retries", part).waiting == 0


def test_pools_whose_reports_are_unknown_are_not_called_missing() -> None:
    unknown = replace(
        state(lane("mail", 3, age_ms=10), down("mail"), down("retries")), server=ServerState(pools_known=False)
    )

    found = row("mail", unknown)

    assert (found.state.word, found.signal, found.slots_known) == ("On time", "open", False)
    assert draw(found).slots == ()
    assert row("retries", unknown).state.word == "Quiet"
    assert not list(pools.look_at_absence(facts(unknown)))
    assert list(pools.look_at_absence(facts(replace(unknown, server=ServerState()))))


def test_stacks_of_tasks_come_first_and_their_own_frames_are_marked() -> None:
    (child,) = shown_stacks([ChildStacks(7, [IDLE, TASK])])

    [task] = child["tasks"]
    assert task["does"] == "runs a task"
    assert [text for text, is_own in task["frames"] if is_own] == ["apps/webhooks/delivering.py:52 deliver"]
    assert task["frames"][0][0] == "socket.py:718 readinto"


def test_the_line_of_the_task_is_named_where_the_stacks_that_do_not_wait_agree() -> None:
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
def test_backticks_are_code_and_everything_is_escaped(text: str, shown: str) -> None:
    assert code_marks(text) == shown


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
