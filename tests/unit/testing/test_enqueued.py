"""assert_enqueued, its words and its reference; batches with the broker in memory."""

import ast
import datetime
import inspect
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import QueueNotFound

from switchyard import testing
from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.errors import ActRefused, QueueFull, UnencodablePayload
from switchyard.broker.interface import facilities
from switchyard.jobs.services import request_cancel
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption, UnknownOption
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, in_memory, run_enqueued
from tests.factories.letters import requeue
from tests.unit.documentation.pages import ROOT, read

DAY = datetime.date(2026, 5, 1)
PAGE = read("docs/reference/testing.md")


@pytest.fixture
def greet(switchyard_broker: testing.MemoryBroker) -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(queue_name="default")
    def greet(name: str, times: int = 1, tags: object = None) -> None: ...

    return greet


@pytest.fixture
def part(switchyard_broker: testing.MemoryBroker) -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(queue_name="urgent")
    def part(name: str) -> None: ...

    return part


def test_a_call_is_found_by_place_or_by_name(greet):
    greet.send("Ada", times=2, tags=("a", "b"))

    [message] = assert_enqueued(greet, args=("Ada", 2, ["a", "b"]), count=1)
    assert_enqueued(greet, kwargs={"times": 2, "tags": ("a", "b"), "name": "Ada"}, queue="default")
    assert_enqueued(greet)
    assert message.args == ("Ada",)


def test_a_call_with_types_is_found_by_its_values(switchyard_broker):
    got: list[Any] = []

    @dramatiq.actor(queue_name="default")
    def remind(due: datetime.date, price: Decimal = Decimal(0)) -> None:
        got.append((due, price))

    remind.send(DAY, price=Decimal("1.50"))

    assert_enqueued(remind, args=(DAY, Decimal("1.50")), count=1)
    with pytest.raises(AssertionError, match="due is '2026-05-01', not '2026-05-02'"):
        assert_enqueued(remind, args=(DAY.replace(day=2), Decimal("1.50")))
    run_enqueued()
    assert got == [(DAY, Decimal("1.50"))]


def test_the_nearest_call_is_named_with_what_differs(greet, part):
    part.send("Bob")
    greet.send("Ada")
    greet.send_with_options(args=("Bob",), kwargs={"times": 3}, delay=2_000)

    with pytest.raises(AssertionError) as refused:
        assert_enqueued(greet, args=("Bob",), kwargs={"times": 2})

    assert str(refused.value) == (
        "greet(name='Bob', times=2) was expected at least once, it was enqueued 0 times.\n"
        "The nearest: greet('Bob', times=3) in 'default', due after 2 s: times is 3, not 2.\n"
        "Enqueued in this test:\n"
        "  part('Bob') in 'urgent'\n"
        "  greet('Ada') in 'default'\n"
        "  greet('Bob', times=3) in 'default', due after 2 s"
    )


def test_the_count_and_the_queue_are_compared(greet):
    greet.send("Ada")
    greet.send("Ada")

    assert len(assert_enqueued(greet, args=("Ada",), count=2)) == 2
    with pytest.raises(AssertionError, match=r"greet\(name='Ada'\) was expected once, it was enqueued 2 times\."):
        assert_enqueued(greet, args=("Ada",), count=1)
    with pytest.raises(AssertionError, match=r"its queue is 'default', not 'urgent'"):
        assert_enqueued(greet, queue="urgent")


def test_nothing_enqueued_lists_what_was_and_what_has_run_as_well(greet, part):
    greet.send("Ada")

    assert_nothing_enqueued(part)
    with pytest.raises(AssertionError, match=r"for greet\.\nEnqueued in this test:\n  greet\('Ada'\) in 'default'"):
        assert_nothing_enqueued(greet)
    with pytest.raises(AssertionError):
        assert_nothing_enqueued()
    assert [message.args for message in testing.enqueued(greet)] == [("Ada",)]
    run_enqueued()
    assert testing.enqueued() == []
    assert_enqueued(greet, count=1)


def test_a_wrong_call_or_option_fails_where_it_is_written(greet):
    with pytest.raises(ArgumentMismatch):
        greet.send("Ada", 1, 2, 3)
    with pytest.raises(UnencodablePayload):
        greet.send("Ada", tags=object())
    with pytest.raises(UnknownOption):
        greet.send_with_options(args=("Ada",), priorty=1)
    with pytest.raises(InvalidOption):
        greet.send_with_options(args=("Ada",), max_retries=-1)
    with pytest.raises(QueueNotFound):
        dramatiq.get_broker().enqueue(greet.message("Ada").copy(queue_name="nowhere"))
    with pytest.raises(TypeError, match=r"an Actor is not a message; write greet\.message\("):
        dramatiq.get_broker().enqueue(greet)
    assert_nothing_enqueued()


def test_a_full_queue_and_a_unique_key_act_as_in_production(switchyard_broker):
    @dramatiq.actor(queue_name="default", unique_key="only one")
    def single() -> None: ...

    first = single.send()
    assert single.send().message_id == first.message_id
    run_enqueued()
    assert single.send().message_id != first.message_id

    switchyard_broker.limits._depths["default"] = 1
    try:
        with pytest.raises(QueueFull):
            dramatiq.actor(lambda: None, actor_name="other", queue_name="default").send()
    finally:
        del switchyard_broker.limits._depths["default"]


def test_helpers_refuse_the_real_broker_with_the_remedy():
    for helper in (run_enqueued, testing.enqueued, assert_nothing_enqueued):
        with pytest.raises(RuntimeError, match="decorate the test or its class with @in_memory"):
            helper()


def test_the_real_broker_and_its_actors_are_back_after_the_block():
    real = dramatiq.get_broker()
    before = dict(real.actors)

    with in_memory() as yard:
        inside = dramatiq.actor(lambda: None, actor_name="only_inside", queue_name="default")
        assert inside.broker is yard.broker is dramatiq.get_broker()
        assert all(actor.broker is yard.broker for actor in before.values())

    assert dramatiq.get_broker() is real
    assert real.actors == before
    assert all(actor.broker is real for actor in before.values())


def test_policies_of_unique_keys_act_as_in_production(switchyard_broker):
    seen: list[tuple[str, int]] = []

    @dramatiq.actor(queue_name="default", unique_key="sync", on_duplicate="replace")
    def sync(number: int) -> None:
        seen.append(("sync", number))
        if number == 2:
            sync.send(3)

    @dramatiq.actor(queue_name="default", unique_key="digest", unique_for=60_000)
    def digest(number: int) -> None:
        seen.append(("digest", number))

    assert sync.send(1).message_id == sync.send(2).message_id
    first = digest.send(1)
    run_enqueued()

    assert digest.send(2).message_id == first.message_id
    assert sorted(seen) == [("digest", 1), ("sync", 2), ("sync", 3)]
    assert_enqueued(sync, args=(2,), count=1)
    assert_enqueued(sync, count=2)


class Actors:
    """Actors that note what they do; ``refused`` are the numbers that fail."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.called: list[str] = []
        made = self

        @dramatiq.actor(queue_name="default", max_retries=0)
        def member(number: int, adds: int = 0) -> None:
            if number in made.refused:
                raise RuntimeError("no paper")
            batch = current_batch()
            batch.add(*(made.member.message(100 + more) for more in range(adds)))

        @dramatiq.actor(queue_name="urgent")
        def called(name: str) -> None:
            batch = current_batch()
            made.called.append(f"{name} {batch.progress().done}")

        self.member, self.call = member, called

    def callbacks(self) -> dict[str, Any]:
        return {name: self.call.message(name) for name in ("on_success", "on_failure", "on_complete")}


@pytest.fixture
def broker() -> Iterator[testing.MemoryBroker]:
    with in_memory() as yard:
        yield yard.broker


@pytest.fixture
def actors(broker: testing.MemoryBroker) -> Actors:
    return Actors()


def test_members_run_and_then_the_callbacks(actors):
    with batch("import", tags=["a"], **actors.callbacks()) as jobs:
        jobs.add(actors.member.message(1, adds=2), actors.member.message(2))
    assert_enqueued(actors.member, count=2)
    assert (jobs.progress().state, jobs.progress().open) == ("open", 2)
    assert [attempt.outcome for attempt in run_enqueued()] == ["succeeded"] * 6
    assert sorted(actors.called) == ["on_complete 4", "on_success 4"]
    found = jobs.progress()
    assert (found.state, found.done, found.name, found.tags) == ("succeeded", 4, "import", ("a",))
    run_enqueued()
    assert len(actors.called) == 2
    with pytest.raises(ActRefused, match="takes no more members"):
        Batch(jobs.id).add(actors.member.message(3))


def test_a_failed_member_is_requeued_and_the_batch_succeeds(actors, broker):
    actors.refused = {1}
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(actors.member.message(1), actors.member.message(2))
    run_enqueued(raises=False)
    assert sorted(actors.called) == ["on_complete 1", "on_failure 1"]
    [dead] = testing.dead_letters()
    actors.refused = set()
    requeue(facilities(broker).transport, "default", dead.id)
    run_enqueued()

    assert sorted(actors.called) == ["on_complete 1", "on_failure 1", "on_success 2"]
    assert jobs.progress().state == "succeeded"


def test_a_cancelled_member_is_counted_and_a_block_that_raises_sends_nothing(actors):
    with batch("import", **actors.callbacks()) as jobs:
        cancelled, _ = jobs.add(actors.member.message(1), actors.member.message(2))
    assert request_cancel(cancelled.message_id) == "cancelled"
    with pytest.raises(ZeroDivisionError), batch("another", **actors.callbacks()) as other:
        other.add(actors.member.message(3))
        raise ZeroDivisionError
    run_enqueued()

    assert (actors.called, jobs.progress().done, jobs.progress().cancelled) == (["on_complete 1"], 1, 1)
    with pytest.raises(ActRefused, match="no batch has this id"):
        other.progress()


def test_every_name_is_described_with_its_arguments():
    shown = dict(re.findall(r"^\| `(\w+)\(([^`]*)\)`", PAGE, re.MULTILINE))
    functions = {name: getattr(testing, name) for name in testing.__all__ if name[0].islower()}

    assert shown.keys() == functions.keys()
    assert [name for name in testing.__all__ if f"`{name}" not in PAGE] == []
    for name, function in functions.items():
        parameters = [
            each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_POSITIONAL
        ]
        written = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in parameters]
        by_name = [place for place, each in enumerate(parameters) if each.kind is each.KEYWORD_ONLY]
        if by_name:
            written.insert(by_name[0], "*")
        assert shown[name] == ", ".join(written)


def test_every_fixture_is_described():
    plugin = ast.parse((ROOT / "switchyard/pytest_plugin.py").read_text(encoding="utf-8"))
    functions = {node.name for node in plugin.body if isinstance(node, ast.FunctionDef)}

    fixtures = {name for name in functions if name.startswith("switchyard")}
    assert fixtures == {"switchyard_broker", "switchyard_eager", "switchyard_real_broker"}
    assert all(f"| `{name}` |" in PAGE for name in (*fixtures, "switchyard_in_memory"))
