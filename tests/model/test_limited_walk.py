"""Limits, order, fairness and batches keep their promises whatever happens, and the walk finds each seeded defect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.server import ServerUnderTest, server_binary
from tests.model.defects import Defect, lua
from tests.model.limited_walk import walk
from tests.model.scripts import Scripts
from tests.model.steps import bench_on

ADMITTED = "if limits and not limits.admit(id, body, level, lane, ARGV[1]) then"
PUT_OFF = "put_off_to(by_actor, body, id, now, KEYS[15])"

DEFECTS = (
    lua(
        "a place that is left goes to nobody",
        "include/limits",
        "    for key in pairs(has) do own.pass_on(key) end\n    return not blocked",
        "    return not blocked",
    ),
    lua(
        "a cancelled message keeps its place",
        "queue/cancel",
        "--@include limits\n",
        "local function limits_of() return { free = function() end } end\n",
    ),
    lua(
        "a place is freed that its heir has",
        "queue/reclaim",
        "limits_of(KEYS[3]).hand_over, id, keeper",
        "limits_of(KEYS[3]).free, { id }, false",
    ),
    lua(
        "one place more is passed on",
        "include/limits",
        "elseif full(wait.keys[wait.at]) then",
        "elseif count(key) > wait.keys[wait.at].n then",
    ),
    lua("a line drops its entry", "include/fair", '    redis.call("ZADD", lines, unpack(members))\n'),
    lua(
        "free places go to the last one first",
        "include/limits",
        'if not after or redis.call("LINSERT", list, "AFTER", after, id) < 1 then redis.call("LPUSH", list, id) end',
        'redis.call("LPUSH", list, id)',
    ),
    lua("one that is made due leaves its line", "queue/due_now", "< LAST_PUT_OFF", "< 0"),
    lua("a tenant is not charged", "include/fair", "line.served = line.served + 1\n"),
    lua(
        "a pause comes before the sequence",
        "queue/fetch",
        ADMITTED,
        f"if not (by_actor and {PUT_OFF}) and {ADMITTED[3:]}",
    ),
    lua("new limits empty the lines", "queue/declare_limits", 'string.format("(%d", LINES)', "LAST_PUT_OFF"),
    lua(
        "one whose key has changed stays first",
        "include/limits",
        "local stays = not wait",
        "local stays = true",
        rare=True,
    ),
    lua("a later one overtakes", "include/limits", "first and first ~= mine", "false", rare=True),
    lua("a retry loses its sequence", "include/limits", "if not ended and keeps_order(key) then", "if false then"),
    lua("a retry waits with its place", "queue/move", "free_places(KEYS[1], { id }, false)\n"),
    lua("a dead letter keeps its sequence", "queue/dead_letter", "{ id }, true)", "{ id }, false)"),
    lua(
        "nobody is told of the next one",
        "include/limits",
        'if not rung[bell] and redis.call("LLEN", bell) == 0 then redis.call("RPUSH", bell, 1) end',
    ),
    lua(
        "a member ends unnoted",
        "queue/dead_letter",
        'note_end(id, "failed", string.sub(KEYS[1], 1, -7) .. "ends")\n',
        rare=True,
    ),
)


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """One server for all: each example begins with an empty one."""
    with ServerUnderTest(tmp_path_factory.mktemp("walk"), server_binary("valkey-server")) as server:
        yield server


def test_the_promises_hold_on_each_server(server: ServerUnderTest) -> None:
    walk(bench_on(server, Scripts()), examples=120)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_promises_hold_in_thousands_of_examples(server: ServerUnderTest) -> None:
    taken = walk(bench_on(server, Scripts()), examples=3000)

    assert min(taken.values()) > 100


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.long] if one.rare or number % 4 else [])
        for number, one in enumerate(DEFECTS)
    ],
)
def test_a_seeded_defect_is_found(valkey_server: ServerUnderTest, defect: Defect) -> None:
    bench = bench_on(valkey_server, Scripts(defect.changes))

    with pytest.raises(AssertionError):
        walk(bench, examples=5000)
