"""Groups, pipelines and completion callbacks with the whole stack."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dramatiq
import pytest
from dramatiq.composition import group
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq.results import ResultFailure, ResultMissing, ResultTimeout

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.limit_counts import GroupBarriers
from switchyard.middleware.callbacks import DurableGroupCallbacks
from tests.factories.brokers import the_global_broker
from tests.factories.letters import requeue
from tests.factories.yards import small_yard
from tests.waiting import wait_for

WAIT_MS = 60_000
DAY_MS = 86_400_000


class Actors:
    """Actors of a broker; the numbers that ``failing`` refuses, and what ``finish`` found."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.finished: list[Any] = []
        self.jobs: Any = None
        made = self

        @dramatiq.actor(queue_name="work", store_results=True)
        def add_one(number: int) -> int:
            return number + 1

        @dramatiq.actor(queue_name="work", store_results=True)
        def failing(number: int) -> int:
            if number in made.refused:
                raise RuntimeError("no paper")
            return number

        @dramatiq.actor(queue_name="work")
        def finish(*args: Any) -> None:
            found = list(made.jobs.get_results()) if made.jobs is not None else None
            made.finished.append((args, found))

        self.add_one, self.failing, self.finish = add_one, failing, finish

    def group(self, *messages: Any, callbacks: tuple[str, ...] = ()) -> group:
        """Return a group of messages, or of so many jobs as there are numbers, with a callback or some with names."""
        jobs = group([self.add_one.message(each) if isinstance(each, int) else each for each in messages])
        for args in [(name,) for name in callbacks] or [()]:
            jobs.add_completion_callback(self.finish.message(*args))
        return jobs


@pytest.fixture
def actors(broker) -> Actors:
    return Actors()


@pytest.fixture
def run(broker, run_worker, actors) -> Callable[..., None]:
    """Have a worker run a group, and what was sent before, until so many callbacks have ended and nothing is left."""

    def run_group(jobs: group | None = None, count: int = 1) -> None:
        with run_worker(broker=broker, threads=8):
            if jobs is not None:
                jobs.run()
            wait_for(lambda: len(actors.finished) >= count)
            drained(broker)

    return run_group


def drained(broker: RedisBroker) -> None:
    broker.join("work", timeout=WAIT_MS)


def test_a_group_and_a_pipeline_say_what_is_missing_while_they_wait(broker, run_worker, actors):
    """Their results are compared in :mod:`tests.integration.stock_dramatiq`."""
    jobs = group([actors.add_one.message(number) for number in range(20)])
    steps = actors.add_one.message(1) | actors.add_one.message()
    assert (jobs.run().completed, jobs.completed_count) == (False, 0)
    for missing in (lambda: list(jobs.get_results()), steps.run().get_result):
        with pytest.raises(ResultMissing):
            missing()
    with pytest.raises(ResultTimeout):
        jobs.wait(timeout=50)
    with run_worker(broker=broker):
        jobs.wait(timeout=WAIT_MS)

    assert list(jobs.get_results()) == list(range(1, 21))
    assert (jobs.completed, jobs.completed_count) == (True, 20)


def test_callbacks_are_sent_once_and_find_all_results(actors, run):
    steps = actors.add_one.message(1) | actors.add_one.message()
    jobs = actors.jobs = actors.group(steps, 5, callbacks=("a", "b"))

    run(jobs, 2)

    assert sorted(actors.finished) == [(("a",), [3, 6]), (("b",), [3, 6])]


def test_many_jobs_of_a_group_that_end_together_send_one_callback(actors, run):
    jobs = actors.jobs = actors.group(*range(100))

    run(jobs)

    assert actors.finished == [((), list(range(1, 101)))]


def test_a_failed_job_holds_the_callback_until_it_was_requeued_and_succeeded(broker, run_worker, actors):
    actors.refused = {2}
    jobs = actors.jobs = actors.group(*map(actors.failing.message, range(3)))
    dead = jobs.children[2].message_id
    transport = facilities(broker).transport
    with run_worker(broker=broker):
        jobs.run()
        wait_for(lambda: transport.find_dead_letter("work", dead))
        with pytest.raises(ResultFailure, match="no paper"):
            jobs.wait(timeout=WAIT_MS)
        drained(broker)
        before = list(actors.finished)
        actors.refused = set()
        requeue(transport, "work", dead)
        wait_for(lambda: actors.finished)
        drained(broker)

    assert before == []
    assert actors.finished == [((), [0, 1, 2])]


def test_a_cancelled_job_holds_the_callback(broker, run_worker, actors):
    jobs = actors.group(1, 2)
    jobs.run()
    assert facilities(broker).transport.cancel("work", jobs.children[1].message_id) == "cancelled"
    with run_worker(broker=broker):
        assert jobs.children[0].get_result(block=True, timeout=WAIT_MS) == 2
        drained(broker)

    assert actors.finished == []


def test_a_job_that_ends_twice_is_counted_once(broker, actors, run):
    """A worker that dies after the count leaves the message to another, which counts it again."""
    jobs = actors.group(1, 2)
    middleware = next(entry for entry in broker.middleware if isinstance(entry, DurableGroupCallbacks))
    sent: list[Any] = []
    broker.add_middleware(Noted(sent))
    jobs.run()
    first, second = (message for message in sent if message.actor_name == "add_one")

    for message in (first, first, first):
        middleware.after_process_message(broker, message, result=1)
    open_before = len(sent)
    for message in (second, second, first):
        middleware.after_process_message(broker, message, result=1)
    run()

    assert open_before == 2
    assert len(actors.finished) == 1


CHILDREN: dict[str, Callable[[Any, Any], list[Any]]] = {
    "one message": lambda plain, once: [plain()] * 3,
    "one pipeline": lambda plain, once: [plain() | plain()] * 2,
    "one key": lambda plain, once: [once(), once(), plain()],
    "a pipeline's first step": lambda plain, once: [once(), once() | plain()],
    "its last step": lambda plain, once: [plain() | once(), once()],
    "both": lambda plain, once: [once(), *[once()] * 2],
}


@pytest.mark.parametrize("children", CHILDREN.values(), ids=CHILDREN)
@pytest.mark.parametrize("ended", [False, True], ids=["waiting", "ended"])
def test_jobs_that_others_stand_for_do_not_hold_the_callback(broker, run_worker, actors, children, ended):
    """Nor those of a later group, whatever became of them meanwhile; a callback of an id is sent once."""
    plain = partial(actors.add_one.message_with_options, args=(1,), pipe_ignore=True)
    found = children(plain, partial(plain, unique_key="same"))
    jobs, again = (actors.group(*found, callbacks=(name,)) for name in ("first", "again"))
    jobs.run()
    if not ended:
        again.run()
    with run_worker(broker=broker):
        wait_for(lambda: actors.finished)
        drained(broker)
        if ended:
            again.run()
        wait_for(lambda: len(actors.finished) == 2)
        drained(broker)

    assert sorted(actors.finished) == [(("again",), None), (("first",), None)]


def test_a_group_without_jobs_is_refused_where_it_is_run(broker, actors):
    with pytest.raises(AssertionError, match="must be a positive"):
        actors.group().run()
    with pytest.raises(ValueError, match="no jobs"):
        facilities(broker).groups.add("what python -O comes to", 0, DAY_MS)


class Noted(dramatiq.Middleware):
    """Middleware that notes what is sent."""

    def __init__(self, sent: list[Any]) -> None:
        self._sent = sent

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self._sent.append(message)


def test_callbacks_that_may_have_been_sent_are_sent_again_under_their_ids(broker, actors, run, monkeypatch):
    """A worker that dies after it sent the callbacks, and before it notes so, leaves that to the next run."""
    groups = facilities(broker).groups
    noted: list[str] = []
    note_sent = groups.note_sent

    def die_once(group_id: str, *, ttl_ms: int) -> None:
        noted.append(group_id)
        if len(noted) == 1:
            raise KeyboardInterrupt
        note_sent(group_id, ttl_ms=ttl_ms)

    monkeypatch.setattr(type(groups), "note_sent", lambda self, *args, **options: die_once(*args, **options))
    middleware = next(entry for entry in broker.middleware if isinstance(entry, DurableGroupCallbacks))
    jobs, sent = actors.group(1), []
    broker.add_middleware(Noted(sent))
    jobs.run()
    with pytest.raises(KeyboardInterrupt):
        middleware.after_process_message(broker, sent[0], result=1)
    for _ in range(2):
        middleware.after_process_message(broker, sent[0], result=1)
    run()

    assert len(noted) == 2
    assert len(actors.finished) == 1


def test_jobs_that_are_repeated_after_they_are_forgotten_send_no_second_callback(broker, run_worker, actors, valkey):
    """The broker forgets finished ids after 10 to 20 minutes."""
    sent: list[Any] = []
    broker.add_middleware(Noted(sent))
    jobs = actors.group(*range(3))
    jobs.run()
    repeats = [message.copy() for message in sent]
    with run_worker(broker=broker):
        wait_for(lambda: actors.finished)
        drained(broker)
        valkey.delete(*valkey.keys(f"{broker.keys.prefix}:*:done:*"))
        for message in repeats:
            broker.enqueue(message)
        wait_for(lambda: len(sent) == 7)
        drained(broker)

    assert len(actors.finished) == 1
    assert list(jobs.get_results()) == [1, 2, 3]


def test_a_jobs_record_is_written_before_it_is_counted(broker, actors, run, monkeypatch):
    found: list[bool] = []
    count = GroupBarriers.count

    def look(groups: GroupBarriers, group_id: str, job_id: str, *, ttl_ms: int) -> str:
        record = facilities(broker).records.read(job_id)
        found.append(record is not None and record.ended)
        return count(groups, group_id, job_id, ttl_ms=ttl_ms)

    monkeypatch.setattr(GroupBarriers, "count", look)
    jobs = actors.group(*range(8))

    run(jobs)

    assert found == [True] * 8


def test_dramatiqs_own_group_callbacks_go_in_place_of_ours(yard_broker, run_worker, valkey):
    own = GroupCallbacks(RedisBackend(client=valkey))
    broker = yard_broker(small_yard(), extra=[own])
    with the_global_broker(broker):
        actors = Actors()
        jobs = actors.group(*range(5))
        with run_worker(broker=broker):
            jobs.run()
            wait_for(lambda: actors.finished)
            drained(broker)

    assert [entry for entry in broker.middleware if isinstance(entry, GroupCallbacks)] == [own]
    assert len(actors.finished) == 1
