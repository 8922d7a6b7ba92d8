"""Circuits on the server: when one opens, what waits, which message probes it, and how it closes."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.admin.browse import pauses_in
from switchyard.broker.admin.purge import set_aside, undo
from switchyard.broker.clock import put_off_reason
from switchyard.broker.queue import administration
from switchyard.broker.queue.limits import Circuit, note_circuit, resume_over
from switchyard.broker.queue.operations import Entry
from switchyard.broker.topology import Dependency
from tests.integration.broker.queue.conftest import ME, Family, now_ms, pause
from tests.waiting import wait_for

PAYMENTS = Dependency("payments", least=4, open_ms=100, longest_open_ms=200)
CIRCUIT = Circuit(PAYMENTS, 60_000, {"pay": 0, "refund": 0})
# Stays open for longer than a busy machine takes for any test.
LASTING = Circuit(Dependency("payments", least=4, open_ms=60_000, longest_open_ms=60_000), 60_000, CIRCUIT.calls)


def note(family: Family, outcome: str = "failed", id_: str = "x", circuit: Circuit = CIRCUIT, **more: Any) -> str:
    return note_circuit(family, circuit, id_, outcome, **more)


def open_it(family: Family, circuit: Circuit = CIRCUIT) -> None:
    assert [note(family, circuit=circuit) for _ in range(4)] == ["closed", "closed", "closed", "opened"]


def probe(family: Family) -> str:
    got: list[str] = []

    def fetched() -> bool:
        got.extend(family.next())
        return bool(got)

    wait_for(fetched)
    assert len(got) == 1
    return got[0]


def end(family: Family, id_: str) -> None:
    """Acknowledge a message with the next fetch of the owner."""
    [lease] = [lease for lease in family.held(ME) if str(lease.id, "ascii") == id_]
    family.ack(ME, [lease])


def test_all_actors_that_call_it_wait_and_others_start(family: Family) -> None:
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    family.send("r1", actor="refund")
    family.send("m1", actor="mail")
    family.calls.command("HSET", family.keys.actor_pauses, "x", "no circuit")  # of another program

    assert family.next() == ["m1"]
    assert [put_off_reason(due_at) for due_at in family.due_times().values()] == ["circuit_open"] * 2
    assert note(family, circuit=LASTING) == "open"
    assert note(family, "ok", circuit=LASTING) == "closed"  # of a call that began before
    assert family.next() == []


def test_a_clock_that_was_ahead_delays_no_probe(family: Family) -> None:
    family.send("p1", actor="pay")
    family.calls.command("SET", family.keys.swept, now_ms(family) + 86_400_000)
    open_it(family)
    text = str(family.calls.command("HGET", family.keys.actor_pauses, CIRCUIT.field), "utf-8")
    ahead = re.sub(r'"(since|until)":(\d+)', lambda time: f'"{time[1]}":{int(time[2]) + 86_400_000}', text, count=2)
    family.calls.command("HSET", family.keys.actor_pauses, CIRCUIT.field, ahead)
    family.calls.command("HSET", family.keys.actor_pauses, "x", "no circuit")  # of another program

    family.lapsed()

    assert probe(family) == "p1"


def test_it_opens_at_the_share_of_failures_since_the_first(family: Family) -> None:
    for _ in range(9):
        assert note(family, "ok") == "closed"
    assert not family.calls.command("EXISTS", family.keys.circuit(CIRCUIT.digest))

    assert [note(family, outcome) for outcome in ("failed", "ok", "ok", "ok", "failed", "failed")][-1] == "opened"


def test_failures_of_an_older_window_do_not_count(family: Family) -> None:
    brief = Circuit(Dependency("payments", least=2, window_ms=30), 60_000, {"pay": 0})
    assert note(family, circuit=brief) == "closed"
    wait_for(lambda: not family.calls.command("EXISTS", family.keys.circuit(brief.digest)))

    assert note(family, circuit=brief) == "closed"


def test_one_message_probes_at_a_time_in_their_order_and_a_success_releases_the_rest(family: Family) -> None:
    open_it(family)
    ids = [f"p{number:03}" for number in range(20)]
    family.send(*ids, actor="pay")

    first = probe(family)
    assert (first, family.next()) == ("p000", [])
    assert note(family, id_=first) == "probed"
    end(family, first)
    second = probe(family)
    assert (second, note(family, "ok", id_="x"), family.next()) == ("p001", "closed", [])
    assert note(family, "ok", id_=second) == "closed"

    started: list[str] = []
    wait_for(lambda: started.extend(family.next()) or len(started) == 18)  # type: ignore[func-returns-value]
    assert started == ids[2:]
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_two_probes_must_succeed_where_two_are_asked_for(family: Family) -> None:
    twice = Circuit(Dependency("payments", least=4, open_ms=50, probes=2), 60_000, {"pay": 0})
    open_it(family, twice)
    family.send("p1", "p2", "p3", actor="pay")

    assert note(family, "ok", probe(family), twice) == "closed"
    assert note(family, "ok", probe(family), twice) == "closed"

    assert probe(family) == "p3"
    assert not family.calls.command("EXISTS", family.keys.actor_pauses)


def test_the_next_message_probes_where_none_waits(family: Family) -> None:
    open_it(family)
    wait_for(
        lambda: family.next() == [] and b'"probe":"*"' in family.calls.command("HGETALL", family.keys.actor_pauses)[1]
    )
    family.send("p1", "p2", actor="pay")

    assert family.next() == ["p1"]
    assert list(family.due_times()) == ["p2"]


def test_a_probe_that_never_ends_is_replaced(family: Family) -> None:
    brief = Circuit(PAYMENTS, 50, {"pay": 0})
    open_it(family, brief)
    family.send("p1", "p2", actor="pay")

    assert [probe(family), probe(family)] == ["p1", "p2"]


def test_a_probe_whose_worker_was_killed_starts_again(family: Family) -> None:
    open_it(family)
    family.send("p1", "p2", actor="pay")
    assert probe(family) == "p1"

    family.reclaim(ME)
    family.join("other/live")

    assert family.next(owner="other/live") == ["p1"]


def shift(family: Family, ms: int) -> None:
    """Have the circuit opened so much later, as by a clock that was ahead."""
    text = str(family.calls.command("HGET", family.keys.actor_pauses, CIRCUIT.field), "ascii")
    later = re.sub(r'(?<="since":|"until":)\d+', lambda found: str(int(found[0]) + ms), text)
    family.calls.command("HSET", family.keys.actor_pauses, CIRCUIT.field, later)


@pytest.mark.parametrize(
    ("age_ms", "declared", "stays"),
    [
        (700_000, {"pay": "payments", "refund": "payments"}, True),
        (0, {"pay": None, "refund": None}, True),
        (700_000, {"pay": None, "refund": "payments"}, False),
        (700_000, {"pay": "payments per host", "refund": "payments"}, False),
        (700_000, {}, False),
    ],
)
def test_a_circuit_that_an_actor_of_it_no_longer_declares_is_closed_after_a_deploy(
    family: Family, age_ms: int, declared: dict[str, str | None], stays: bool
) -> None:
    actors: Any = [SimpleNamespace(actor_name=name, options={"depends_on": spec}) for name, spec in declared.items()]
    open_it(family)
    family.send(*(f"p{number}" for number in range(9)), actor="pay")
    found = family.next()  # none, or on a busy machine the first, as a probe
    shift(family, -age_ms)

    resume_over(family, actors)

    wait_for(lambda: found.extend(family.next()) or len(found) == (1 if stays else 9))  # type: ignore[func-returns-value]
    assert bool(family.calls.command("EXISTS", family.keys.actor_pauses)) == stays


def test_only_one_value_of_an_argument_waits_at_its_place_in_each_actor(family: Family) -> None:
    one = Circuit(PAYMENTS, 60_000, {"pay": 2, "refund": 0}, "host", "a.example")
    open_it(family, one)
    family.send("p1", actor="pay", args=[7, "a.example"])
    family.send("p2", actor="pay", args=["a.example", 7])
    family.send("r1", actor="refund", kwargs={"host": "a.example"})
    family.send("r2", actor="refund", kwargs={"host": "b.example"})

    assert family.next() == ["p2", "r2"]


def test_a_person_closes_it_and_what_waits_in_every_lane_is_due(family: Family) -> None:
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    family.enqueue([Entry("p2", b'{"actor":"pay","sent_at":1}')], lane="retry")
    family.join("me/retry")
    assert (family.next(), family.next(owner="me/retry")) == ([], [])

    assert administration.resume_actor(family, LASTING.field)
    assert not administration.resume_actor(family, LASTING.field)

    wait_for(lambda: family.next() == ["p1"])
    wait_for(lambda: family.next(owner="me/retry") == ["p2"])


def test_a_pause_of_the_actor_holds_what_its_circuit_releases_and_the_other_way_round(family: Family) -> None:
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    assert family.next() == []
    made = pause(family, "pay")
    administration.resume_actor(family, LASTING.field)

    wait_for(
        lambda: family.next() == [] and {put_off_reason(at) for at in family.due_times().values()} == {"actor_paused"}
    )
    open_it(family, LASTING)
    administration.resume_actor(family, made.field)
    assert family.next() == []
    assert {put_off_reason(at) for at in family.due_times().values()} == {"circuit_open"}


def test_circuits_leave_room_for_pauses_by_people(family: Family) -> None:
    hosts = [Circuit(Dependency("web", least=1), 60_000, {"pay": 1}, "host", f"h{number}") for number in range(82)]

    opened = [note(family, circuit=host) for host in hosts]

    assert (opened.count("opened"), opened[80:]) == (80, ["closed", "closed"])
    pause(family)


def test_a_circuit_for_which_nothing_waits_gives_its_place_to_another(family: Family) -> None:
    brief = Dependency("web", least=1, open_ms=30, longest_open_ms=30)
    hosts = [Circuit(brief, 60_000, {"pay": 1}, "host", f"h{number}") for number in range(81)]
    family.send("waits", actor="pay", args=["h0"])
    assert [note(family, circuit=host) for host in hosts[:80]] == ["opened"] * 80
    key = family.keys.actor_pauses
    wait_for(
        lambda: family.next() is not None and sum(b'"*"' in text for text in family.calls.command("HVALS", key)) == 79
    )

    assert note(family, circuit=hosts[80]) == "opened"

    left = {each.value for each in pauses_in([family])}
    assert len(left) == 80
    assert {"h0", "h80"} <= left


def test_a_time_that_was_asked_for_opens_it_and_moves_its_probe(family: Family) -> None:
    family.send("p1", actor="pay")

    assert note(family, until_ms=now_ms(family) + 3_600_000) == "opened"
    assert family.next() == []
    later = now_ms(family) + 7_200_000
    assert note(family, until_ms=later) == "open"
    assert note(family, until_ms=later - 1_000) == "open"
    assert [each.until for each in pauses_in([family])] == [later]


def test_a_purge_that_is_undone_makes_what_a_circuit_has_put_off_due(family: Family) -> None:
    open_it(family, LASTING)
    family.send("p1", actor="pay")
    assert family.next() == []
    set_aside(family, "purge", by="ada", reason="")
    administration.resume_actor(family, LASTING.field)
    undo(family, "purge")

    assert probe(family) == "p1"
