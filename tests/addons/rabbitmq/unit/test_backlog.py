"""Backlog of a pool on RabbitMQ: what the server counts, and the lapse suspects that are noted beside it."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from switchyard.addons.rabbitmq.leases import COUNT_AGAIN_S, RabbitBacklog
from switchyard.addons.rabbitmq.redeliveries import KEPT_MS, LapseRecord, decode
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.leases import TickBudget
from switchyard.broker.queue.operations import QueueOperations

KEYS = Keys("test")


class Beside:
    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}

    def command(self, name: str, key: str, *words: Any, budget_s: float | None = None) -> Any:
        found = self.hashes.setdefault(key, {})
        if name == "HGETALL":
            return [word for pair in found.items() for word in pair]
        if name == "HVALS":
            return list(found.values())
        assert name == "HDEL"
        return [found.pop(word) for word in words]

    def suspect(self, id_: str, at_ms: int) -> None:
        self.hashes.setdefault(KEYS.queue("work").suspects, {})[id_.encode()] = LapseRecord(at_ms).encode().encode()


class Server:
    """RabbitMQ with so many messages in each of its queues."""

    def __init__(self, **ready: int) -> None:
        self.ready, self.counted = ready, list[str]()

    def count(self, names: Iterable[tuple[str, str]]) -> list[int]:
        pairs = list(names)
        self.counted += [lane for lane, _ in pairs]
        return [self.ready.get(name.removeprefix("test.").replace("-", "_").replace(".", "_"), 0) for _, name in pairs]


def backlog(server: Server, beside: Any, lanes: Sequence[Any] = (("work", "live"), ("work", "retry"))) -> RabbitBacklog:
    queues = {"work": QueueOperations(beside, KEYS.queue("work"))}
    return RabbitBacklog(beside, queues, lanes, keys=KEYS, count=server.count)


def budget() -> TickBudget:
    return TickBudget(time.monotonic() + 1)


def test_isolated_messages_of_all_levels_are_counted_and_without_a_suspect_no_other_lane():
    server = Server(work_alone=2, work_alone_high=1, work=9)
    found = backlog(server, Beside())

    assert found.poll(budget()) == 3

    assert set(server.counted) == {"work-alone"}
    assert (found.suspects_wait, found.wants_quiet_period, found.waiting) == (False, False, False)


def test_suspects_that_wait_want_a_quiet_period_beside_what_else_waits():
    server, beside = Server(work_alone=2, work_low=1), Beside()
    beside.suspect("pill", now_ms())
    found = backlog(server, beside)

    found.poll(budget())

    assert (found.suspects_wait, found.wants_quiet_period, found.waiting) == (True, True, True)


@pytest.mark.parametrize(("suspects", "wanted"), [(8, False), (9, True)])
def test_eight_suspects_are_left_to_the_supervisor_that_runs_some(suspects, wanted):
    server, beside = Server(work_alone=20), Beside()
    for number in range(suspects):
        beside.suspect(f"job-{number}", now_ms())
    beside.hashes[KEYS.queue("work").running] = {b"a/alone": b"1 1 host", b"b/live": b"4 0 host\n1 1 x", b"c": b"0 0 h"}
    found = backlog(server, beside)

    found.poll(budget())

    assert (found.suspects_wait, found.wants_quiet_period) == (True, wanted)


def test_suspects_without_a_message_that_waits_want_nothing():
    server, beside = Server(work=3), Beside()
    beside.suspect("held", now_ms())
    found = backlog(server, beside)

    assert found.poll(budget()) == 0
    assert not found.wants_quiet_period


def test_what_has_not_changed_for_72_hours_is_forgotten():
    server, beside = Server(work_alone=1), Beside()
    beside.suspect("old", now_ms() - KEPT_MS - 1)
    found = backlog(server, beside)

    found.poll(budget())

    assert not found.suspects_wait
    assert beside.hashes[KEYS.queue("work").suspects] == {}


def test_a_pool_of_retries_alone_counts_nothing():
    server = Server(work_alone=1)

    assert backlog(server, Beside(), lanes=[("work", "retry")]).poll(budget()) == 0
    assert server.counted == []


def test_a_server_that_does_not_answer_is_counted_later(monkeypatch):
    server, beside = Server(work_alone=1), Beside()
    beside.suspect("pill", now_ms())
    found = backlog(server, beside)
    found.poll(budget())

    def refuse(names: object) -> list[int]:
        raise BrokerUnavailable("a count", "away")

    monkeypatch.setattr(found, "_count", refuse)
    found.poll_within(0)
    assert found.poll(budget()) == 0
    assert not found.suspects_wait
    assert found._poll_at_s > time.monotonic() + COUNT_AGAIN_S - 1


NOW = 10 * KEPT_MS


def test_a_first_lapse_marks_and_counts_nothing():
    assert LapseRecord(NOW).after(lapsed=True, now_ms=NOW).lapses == ()


def test_a_lapse_of_a_lone_run_is_counted_once_with_its_host():
    counted = LapseRecord(NOW - 9, f"{NOW - 5}@box", (f"{NOW - 8}@other",)).after(lapsed=True, now_ms=NOW)

    assert counted == LapseRecord(NOW, "", (f"{NOW - 8}@other", f"{NOW}@box"))
    assert counted.after(lapsed=True, now_ms=NOW + 1).lapses == counted.lapses


def test_a_lone_run_whose_end_is_known_is_not_counted():
    assert LapseRecord(NOW - 9, f"{NOW - 5}@box").after(lapsed=False, now_ms=NOW) == LapseRecord(NOW)


def test_a_lapse_counts_for_72_hours():
    note = LapseRecord(NOW, "", (f"{NOW - KEPT_MS - 1}@box", f"{NOW - KEPT_MS}@box"))

    assert note.after(lapsed=True, now_ms=NOW).lapses == (f"{NOW - KEPT_MS}@box",)


def test_a_delivery_that_changes_nothing_leaves_the_note_as_it_is():
    note = LapseRecord(NOW - 9, "", (f"{NOW - 8}@box",))

    assert note.after(lapsed=False, now_ms=NOW) is note


@pytest.mark.parametrize(
    "note",
    [LapseRecord(1), LapseRecord(2, "1@box"), LapseRecord(3, "", ("1@a", "2@b-c.d")), LapseRecord(4, "3@x", ("1@a",))],
)
def test_a_stored_note_is_read_as_it_was(note):
    assert decode(note.encode().encode()) == note


@pytest.mark.parametrize("stored", [None, b"", b"x", b"1 -", b"1 - 2", b"1 box +", b"1 - + +", b"\xff - +"])
def test_a_note_that_cannot_be_read_counts_as_none(stored):
    assert decode(stored) is None
