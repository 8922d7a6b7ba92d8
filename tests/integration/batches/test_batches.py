"""Batches: members of several queues, every end that one may have, and every step that may be cut off or repeated."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dramatiq
import pytest
from django.db import transaction
from dramatiq.composition import pipeline
from dramatiq.message import Message

from switchyard.batches import counting
from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.admin import purge
from switchyard.broker.errors import ActRefused, BrokerRefused
from switchyard.broker.interface import facilities
from switchyard.broker.stores.batches import Batches, batch_of
from switchyard.jobs.services import check_cancelled, current_job_id
from switchyard.outbox.models import OutboxRow
from switchyard.schedules.runner import maintenance_tasks
from tests.factories.brokers import the_global_broker
from tests.factories.letters import discard, requeue
from tests.integration.batches.conftest import Actors, figures, two_queues, until
from tests.integration.history.rows import job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
Count = Callable[[], int]


def test_members_of_two_queues_are_counted_and_two_callbacks_are_sent(broker, run_worker, actors, count):
    with batch("import", tags=["a"], **actors.callbacks()) as jobs:
        sent = jobs.add(*(actors.work.message(number) for number in range(5)), actors.other.message(5))

    assert figures(jobs) == ("open", 6, 0, 0, 0)
    assert {batch_of(message.message_id) for message in sent} == {jobs.id}
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)
        count()
    assert sorted(actors.ran) == list(range(6))
    assert sorted(actors.called) == ["on_complete", "on_success"]
    found = jobs.progress()
    assert (found.name, found.tags, found.state, found.done, found.total) == ("import", ("a",), "succeeded", 6, 6)
    assert set(found.sent) == {"on_complete", "on_success"}


def test_a_dead_member_has_failed_until_it_was_requeued_and_succeeded(broker, run_worker, actors, count):
    actors.refused = {1}
    with batch("import", **actors.callbacks()) as jobs:
        _, dead = jobs.add(actors.work.message(0), actors.work.message(1))
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)
        before = sorted(actors.called), figures(jobs)
        actors.refused = set()
        requeue(facilities(broker).transport, "work", dead.message_id)
        until(count, lambda: len(actors.called) == 3)
        count()

    assert before == (["on_complete", "on_failure"], ("complete", 0, 1, 1, 0))
    assert sorted(actors.called) == ["on_complete", "on_failure", "on_success"]
    assert figures(jobs) == ("succeeded", 0, 2, 0, 0)


def test_a_member_adds_members_while_it_runs(actors, run_until):
    jobs = actors.imports(*range(4), adds=3)
    run_until(lambda: "on_success" in actors.called)

    assert figures(jobs) == ("succeeded", 0, 16, 0, 0)
    assert len(actors.ran) == 16


def test_a_batch_takes_members_from_outside_until_it_has_succeeded(actors, run_until):
    with batch("import") as jobs:
        jobs.add(actors.work.message(0))
    Batch(jobs.id).add(actors.other.message(1))
    assert figures(jobs)[1] == 2
    run_until(lambda: figures(jobs)[0] == "succeeded")

    with pytest.raises(ActRefused, match="takes no more members"):
        Batch(jobs.id).add(actors.other.message(2))
    with pytest.raises(ActRefused, match="no batch has this id"):
        Batch("0123456789ab").add(actors.other.message(2))
    with pytest.raises(ActRefused, match="no batch has this id"):
        Batch("0123456789ab").progress()


def test_a_block_that_raises_after_500_members_does_not_succeed(actors, run_until):
    with pytest.raises(ZeroDivisionError), batch("import", **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number) for number in range(501)))
        raise ZeroDivisionError
    run_until(2)

    assert sorted(actors.called) == ["on_complete", "on_failure"]
    assert figures(jobs) == ("complete", 0, 500, 0, 0)


def test_what_cannot_be_a_batch_is_refused(actors):
    with pytest.raises(ValueError, match="name is ''"):
        batch("")
    with pytest.raises(ValueError, match="tags are"):
        batch("import", tags=[1])
    with batch("import") as jobs, pytest.raises(ActRefused, match="not a member"):
        steps = pipeline([actors.work.message(1), actors.work.message(2)])
        jobs.add(steps.messages[0])
    with batch("import") as jobs, pytest.raises(TypeError, match=r"an Actor is not a message; write work\.message\("):
        jobs.add(actors.work)
    with batch("import") as jobs, pytest.raises(ActRefused, match=r"was sent already, .* twice; write work\.message\("):
        jobs.add(actors.work.send(1))
    with pytest.raises(ActRefused, match="was sent already"):
        batch("import", on_success=actors.work.send(1))
    assert current_batch() is None


@pytest.fixture
def store(broker) -> Batches:
    found = facilities(broker).batches
    assert found is not None
    return found


def looked_at(store: Batches, batch_id: str) -> None:
    """Do what the scheduler does once members have not changed for ten minutes."""
    counting.look_at(store, batch_id, lost_after_ms=0)
    counting.look_at(store, batch_id, lost_after_ms=0)


def test_a_member_that_is_too_old_has_failed(actors, run_until):
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(actors.work.message_with_options(args=(0,), max_age=1))
    run_until(2)

    assert (actors.ran, sorted(actors.called)) == ([], ["on_complete", "on_failure"])
    assert figures(jobs) == ("complete", 0, 0, 1, 0)


def test_a_member_that_is_cancelled_while_it_runs_is_cancelled(broker, actors, run_until):
    transport = facilities(broker).transport

    @dramatiq.actor(queue_name="work")
    def asks_to_be_cancelled() -> None:
        assert transport.cancel("work", current_job_id()) == "asked"
        wait_for(lambda: check_cancelled() or False)

    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(asks_to_be_cancelled.message())
    run_until(lambda: actors.called)

    assert (actors.called, figures(jobs)) == (["on_complete"], ("complete", 0, 0, 0, 1))


@pytest.mark.parametrize("sender_was_killed", [False, True])
def test_a_member_whose_unique_key_is_held_counts_as_done(actors, count, monkeypatch, run_until, sender_was_killed):
    only_one = dramatiq.actor(
        lambda: actors.ran.append(1), actor_name="only_one", queue_name="work", unique_key=lambda: "one"
    )
    with monkeypatch.context() as patch:
        if sender_was_killed:  # before the hook
            patch.setattr(Batches, "note_end", lambda *args, **options: None)
        with batch("import", **actors.callbacks()) as jobs:
            jobs.add(only_one.message(), only_one.message())
    if not sender_was_killed:
        count()
        assert figures(jobs) == ("open", 1, 1, 0, 0)
    run_until(2)

    assert (actors.ran, figures(jobs)) == ([1], ("succeeded", 0, 2, 0, 0))


def test_purged_discarded_and_unreadable_members_have_ended(broker, actors, count, run_until):
    family, transport = broker.lane("work")[0], facilities(broker).transport
    actors.refused = {1}
    with batch("import", **actors.callbacks()) as jobs:
        purged, dead = jobs.add(actors.work.message(0), actors.work.message(1))
        [odd] = jobs.add(actors.other.message(2))
    family.calls.command("HSET", broker.lane("other")[0].keys.bodies, odd.message_id, "no message")
    transport.cancel("work", dead.message_id)
    purge.set_aside(family, "a-purge", by="ada", undo_ms=0)
    while purge.finish(family, facilities(broker).records):
        pass
    count()
    assert figures(jobs) == ("open", 1, 0, 0, 2)
    [again] = Batch(jobs.id).add(actors.work.message(1))
    run_until(lambda: figures(jobs)[1] == 0)
    discard(transport, "work", again.message_id)
    count()

    assert figures(jobs) == ("complete", 0, 0, 2, 2)
    assert purged.message_id != dead.message_id


def test_a_count_that_is_cut_off_is_repeated_and_calls_back_once(broker, run_worker, actors, count, monkeypatch):
    cut = [9]

    def cut_off(name: str, most: int) -> None:
        real = getattr(Batches, name)

        def call(self: Batches, *args: Any) -> None:
            cut[0] += 1
            if cut[0] <= most:
                raise KeyboardInterrupt
            real(self, *args)

        monkeypatch.setattr(Batches, name, call)

    def counted() -> None:
        with suppress(KeyboardInterrupt):
            count()

    cut_off("note", 3)
    cut_off("drop_ends", 5)
    jobs = actors.imports(*range(3))
    cut[0] = 0
    with run_worker(broker=broker):
        until(counted, lambda: cut[0] > 5 and len(actors.called) >= 2)
        counted()
        broker.join("other", timeout=30_000)

    assert sorted(actors.called) == ["on_complete", "on_success"]
    assert figures(jobs) == ("succeeded", 0, 3, 0, 0)


def test_an_attempt_that_is_repeated_adds_no_member_twice(actors, run_until):
    made: list[str] = []

    @dramatiq.actor(queue_name="work")
    def opens() -> None:
        with batch("inner", **actors.callbacks()) as jobs:
            jobs.add(*(actors.other.message(number) for number in (1, 2, 2)))
        made.append(jobs.id)
        if len(made) == 1:
            raise RuntimeError("after its members were sent")

    opens.send()
    run_until(lambda: len(made) == 2 and len(actors.called) == 2)

    assert made[0] == made[1]
    assert sorted(actors.ran) == [1, 2, 2]
    assert figures(Batch(made[0])) == ("succeeded", 0, 3, 0, 0)


def test_a_requeued_member_adds_members_to_a_batch_that_was_complete(broker, run_worker, actors, count, store):
    actors.refused = {0}
    with batch("import", **actors.callbacks()) as jobs:
        [dead] = jobs.add(actors.work.message(0, adds=2))
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)
        actors.refused = set()
        store.look_no_more(jobs.id)
        requeue(facilities(broker).transport, "work", dead.message_id)
        until(lambda: 0, lambda: jobs.progress().total == 3)
        watched = store.unfinished(9)
        until(count, lambda: len(actors.called) == 3)

    assert watched == [jobs.id], "it is looked at again"
    assert sorted(actors.called) == ["on_complete", "on_failure", "on_success"]
    assert figures(jobs) == ("succeeded", 0, 3, 0, 0)


def test_a_member_that_is_done_stays_done_and_another_may_end_again(actors, store):
    with batch("import") as jobs:
        one, other = (message.message_id for message in jobs.add(actors.work.message(0), actors.work.message(1)))
    store.count(jobs.id, [(one, "done"), (other, "failed")])
    store.count(jobs.id, [(one, "failed"), (other, "cancelled"), ("0123", "done")])
    assert figures(jobs) == ("complete", 0, 1, 0, 1)
    store.count(jobs.id, [(other, "done")])

    assert figures(jobs) == ("succeeded", 0, 2, 0, 0)


class NeverSent(Exception):
    """Raised in place of a kill."""


def unsent(*args: Any) -> None:
    raise NeverSent


def test_a_maker_that_is_killed_before_it_sends_leaves_nothing(broker, actors, store, monkeypatch):
    monkeypatch.setattr(broker, "enqueue_many", unsent)
    with pytest.raises(NeverSent), batch("import", **actors.callbacks()) as jobs:
        jobs.add(actors.work.message(0))
    monkeypatch.undo()
    counting.look_at(store, jobs.id)
    assert figures(jobs) == ("open", 1, 0, 0, 0)
    looked_at(store, jobs.id)

    with pytest.raises(ActRefused):
        jobs.progress()
    assert store.newest(limit=9) == []


def test_members_that_were_never_sent_have_failed(broker, actors, store, monkeypatch, run_until):
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(actors.work.message(0))
        monkeypatch.setattr(actors, "refused", set())
    monkeypatch.setattr(broker, "enqueue_many", unsent)
    with pytest.raises(NeverSent):
        Batch(jobs.id).add(actors.work.message(1))
    monkeypatch.undo()
    looked_at(store, jobs.id)

    assert figures(jobs) == ("open", 1, 0, 1, 0)
    run_until(2)
    assert sorted(actors.called) == ["on_complete", "on_failure"]


def test_an_end_that_left_no_note_is_found(broker, run_worker, actors, count, store):
    jobs = actors.imports(0)
    with run_worker(broker=broker):
        until(lambda: 0, lambda: facilities(broker).batches and store.noted(["work"])[0])
        for ends in store.ends("work"):
            store.drop_ends("work", ends)
        looked_at(store, jobs.id)
        until(count, lambda: len(actors.called) == 2)

    assert figures(jobs) == ("succeeded", 0, 1, 0, 0)


def test_a_batch_that_its_maker_left_open_is_closed_after_an_hour(
    broker, run_worker, actors, count, store, monkeypatch
):
    made = batch("import", **actors.callbacks()).__enter__()
    made.add(*(actors.work.message(number) for number in range(500)))
    with run_worker(broker=broker):
        until(count, lambda: figures(made)[1] == 0)
        counting.look_at(store, made.id)
        assert figures(made)[0] == "open"
        monkeypatch.setattr(counting, "ABANDONED_AFTER_MS", 0)
        looked_at(store, made.id)
        until(count, lambda: len(actors.called) == 2)

    assert sorted(actors.called) == ["on_complete", "on_failure"]


@pytest.mark.parametrize("sends", ["on_commit", "outbox"])
def test_members_of_a_transaction_are_counted_at_once_and_sent_with_it(yard_broker, run_worker, sends):
    broker = yard_broker(two_queues(), sends=sends)
    with the_global_broker(broker):
        actors, store = Actors(), facilities(broker).batches
        assert store is not None
        with transaction.atomic():
            with batch("import", **actors.callbacks()) as jobs:
                jobs.add(actors.work.message(0), actors.work.message(1))
            assert figures(jobs) == ("open", 2, 0, 0, 0)
            assert facilities(broker).transport.stats("work").live.waiting == 0
            if sends == "outbox":
                looked_at(store, jobs.id)
                assert OutboxRow.objects.count() == 2
                assert figures(jobs) == ("open", 2, 0, 0, 0)
        with run_worker(broker=broker):
            until(counting.count_batches, lambda: len(actors.called) == 2)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            with batch("import", **actors.callbacks()) as rolled_back:
                rolled_back.add(actors.work.message(2))
            raise ZeroDivisionError
        looked_at(store, rolled_back.id)

        assert sorted(actors.called) == ["on_complete", "on_success"]
        with pytest.raises(ActRefused):
            rolled_back.progress()


@pytest.mark.parametrize("refused", ["the queue of its callback", "itself"])
def test_a_batch_that_is_refused_keeps_no_other_one_open(broker, run_worker, actors, count, store, refused, run_until):
    family = broker.lane("other")[0]
    with batch("first", on_complete=actors.call.message("on_complete")) as first:
        first.add(actors.work.message(0))
    with batch("second") as second:
        second.add(actors.work.message(1))
    with run_worker(broker=broker):
        until(lambda: 0, lambda: len(actors.ran) == 2)
    key = family.keys.bodies if refused != "itself" else broker.keys.batch(first.id)
    if refused == "itself":
        family.calls.command("RENAME", key, f"{key}:kept")
    family.calls.command("SET", key, "of another program")

    def counted() -> None:
        with suppress(BrokerRefused):
            count()

    until(counted, lambda: figures(second)[0] == "succeeded")
    counting.look_at(store, second.id)
    family.calls.command("DEL", key)
    if refused == "itself":
        family.calls.command("RENAME", f"{key}:kept", key)
    store.look_again(first.id, 0)
    run_until(lambda: actors.called)

    assert (actors.called, figures(first)) == (["on_complete"], ("succeeded", 0, 1, 0, 0))


def test_members_that_are_relayed_meanwhile_and_those_that_only_the_history_knows_are_found(
    broker, actors, store, monkeypatch
):
    sent: list[Message[Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(broker, "enqueue_many", sent.extend)
        with batch("import", **actors.callbacks()) as jobs:
            jobs.add(*(actors.work.message(number) for number in range(61)))
    for message in sent[1:]:
        job_row(job_id=message.message_id, queue="work")
    look = counting.waiting_ids

    def relayed_then(ids: Any) -> Any:
        broker.put(sent[:1])
        return look(ids)

    monkeypatch.setattr(counting, "waiting_ids", relayed_then)
    looked_at(store, jobs.id)

    assert figures(jobs) == ("open", 1, 60, 0, 0)


def test_a_callback_that_is_refused_is_sent_once_it_can_be(broker, run_worker, actors, count, store, monkeypatch):
    with batch("import", on_complete=actors.call.message("on_complete")) as jobs:
        jobs.add(actors.work.message(0))
    real = broker.enqueue

    def refused(message: Message[Any], **named: Any) -> Message[Any]:
        if message.actor_name == "called":
            raise ValueError("not here")
        return real(message, **named)

    monkeypatch.setattr(broker, "enqueue", refused)
    with run_worker(broker=broker):
        until(count, lambda: figures(jobs)[0] == "succeeded")
        monkeypatch.undo()
        counting.look_at(store, jobs.id)
        until(count, lambda: actors.called)

    assert actors.called == ["on_complete"]


def test_batches_that_have_expired_leave_the_list(actors, store, monkeypatch):
    with batch("old") as old:
        old.add(actors.work.message(0))
    with batch("expired") as expired:
        pass
    store.count(expired.id, ttl_ms=1)
    wait_for(lambda: store.read([expired.id]) == [None])
    [task] = [task for task in maintenance_tasks() if task.name == "expired batches"]

    task.run()
    young = [batch_id for batch_id, _ in store.newest(limit=9)]
    monkeypatch.setattr(counting, "TTL_MS", -1_000)
    task.run()

    assert sorted(young) == sorted([old.id, expired.id])
    assert [batch_id for batch_id, _ in store.newest(limit=9)] == [old.id]


def test_a_callback_finds_its_batch(run_until):
    found: list[Any] = []

    @dramatiq.actor(queue_name="work")
    def report() -> None:
        current = current_batch()
        found.append(current and (current.id, current.progress().state))

    with batch("import", on_complete=report.message()) as jobs:
        pass
    run_until(lambda: found)

    assert found == [(jobs.id, "succeeded")]
