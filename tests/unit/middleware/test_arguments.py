"""Calls of actors: their arguments, their origin, and those of async actors outside of a worker."""

import asyncio
import inspect
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import Parameter
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from dramatiq import Message
from dramatiq.actor import Actor
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import CurrentMessage
from dramatiq.threading import Interrupt, raise_thread_exception
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from switchyard.jobs.request_origin import HEADER, request_origin
from switchyard.middleware.arguments import MOST_SEEN, Arguments, call_of, calls_of, knows
from switchyard.middleware.async_actors import AsyncActors, EventLoop
from switchyard.middleware.envelope import LONGEST_VALUE, Envelope, Origin, following, sent_by_schedule
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption, MissingWorker
from switchyard.middleware.options import Options, refuse_unknown
from switchyard.middleware.parking import MOST_LOGGED, Parking
from switchyard.workers.child.main import all_work
from tests.waiting import wait_for

NAMES = ("a", "b", "c", "d")
PLAIN = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
STARRED = {"args": Parameter.VAR_POSITIONAL, "others": Parameter.VAR_KEYWORD}
calls = st.tuples(st.integers(0, 6), st.sets(st.sampled_from((*NAMES, "args", "others", "", "e"))))


def _signature(kinds: list[inspect._ParameterKind], optional: list[bool], starred: set[str]) -> inspect.Signature:
    parameters, defaulted = [], False
    for name, kind, has_default in zip(NAMES, sorted(kinds), optional, strict=False):
        # By place, whatever follows one with a default has one, too.
        defaulted = has_default or (defaulted and kind is not Parameter.KEYWORD_ONLY)
        parameters.append(Parameter(name, kind, default=0 if defaulted else Parameter.empty))
    parameters += [Parameter(name, STARRED[name]) for name in starred]
    return inspect.Signature(sorted(parameters, key=lambda each: each.kind))


signatures = st.builds(
    _signature,
    st.lists(st.sampled_from(PLAIN), max_size=len(NAMES)),
    st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)),
    st.sets(st.sampled_from(tuple(STARRED))),
)


def _binds(signature: inspect.Signature, places: int, names: set[str]) -> bool:
    try:
        signature.bind(*range(places), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _looks_right(signature: inspect.Signature, places: int, names: set[str]) -> bool:
    def function() -> None: ...

    function.__signature__ = signature
    return calls_of(function).fit(places, dict.fromkeys(names).keys())


@given(signatures, calls)
def test_what_the_look_lets_through_binds(signature, call):
    if _looks_right(signature, *call):
        assert _binds(signature, *call), str(signature)


@given(signatures, calls)
def test_every_call_without_stars_is_let_through_if_it_binds(signature, call):
    starred = any(each.kind in STARRED.values() for each in signature.parameters.values())

    if not starred and _binds(signature, *call):
        assert _looks_right(signature, *call), str(signature)


def test_what_stars_take_is_left_to_bind():
    def function(a: int, *args: int, b: int = 0, **others: int) -> None: ...

    fits = [calls_of(function).fit(places, names.keys()) for places, names in ((1, {"b": 1}), (2, {}), (1, {"c": 1}))]

    assert fits == [True, False, False]


def test_only_calls_that_fit_are_seen_and_of_many_orders_some():
    def function(a: int, *, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> None: ...

    found = calls_of(function)

    assert not found.fit(2, {}.keys()) and not found.fit(1, {"g": 1}.keys())
    assert found.seen == set()
    assert found.fit(1, {"c": 1, "b": 1}.keys())
    assert found.seen == {(1, "c", "b")}
    assert all(found.fit(1, dict.fromkeys(names).keys()) for names in itertools.permutations("bcdef"))
    assert len(found.seen) == MOST_SEEN


def test_a_call_that_does_not_fit_is_refused_with_the_declaration():
    def greet(name: str) -> None: ...

    greet = dramatiq.actor(greet, broker=StubBroker(middleware=[Arguments()]))
    two: Any = ("Ada", "Grace")
    with pytest.raises(ArgumentMismatch, match=r"too many positional arguments; it is declared as greet\("):
        greet.send(*two)
    with pytest.raises(ArgumentMismatch, match="got an unexpected keyword argument 'delay'"):
        greet.send("Ada", **cast(Any, {"delay": 5}))


@pytest.mark.parametrize("wrong", [[1], "xy"])
def test_arguments_by_name_of_another_type_are_refused(wrong):
    actor = dramatiq.actor(actor_name="named", broker=StubBroker(middleware=[Arguments()]))(lambda first: None)

    with pytest.raises(ArgumentMismatch, match=r"^actor named: kwargs is a \w+; write a dict; it is declared"):
        actor.send_with_options(kwargs=wrong)


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[])

    @dramatiq.actor(broker=broker)
    def report(month: str, *, language: str = "en") -> None: ...

    return broker


def message(actor: str, *args: object, **kwargs: object) -> Message[None]:
    return Message("default", actor, args, kwargs, {})


@pytest.mark.parametrize(
    ("sent", "is_known"),
    [
        (message("report", "May"), True),
        (message("report", month="May", language="de"), True),
        (message("report"), False),
        (message("report", "May", "June"), False),
        (message("report", "May", tongue="de"), False),
        (message("audit"), False),
    ],
)
def test_code_knows_a_call_by_name_number_and_names(broker, sent, is_known):
    assert knows(broker, call_of(sent)) is is_known


@pytest.mark.parametrize(
    "call", ["", "5", "[]", '["report"]', '["report", "x", []]', '["report", 1, 5]', "[{}, 1, []]"]
)
def test_what_is_no_call_is_known_to_nobody(broker, call):
    assert not knows(broker, call)


def test_calls_differ_by_nothing_but_name_number_and_names():
    first, second = message("a", 1, b=2, c=3), message("a", "one", c="three", b=None)

    assert call_of(first) == call_of(second)
    assert "\n" not in call_of(message("a\n", **{"b\n": 1}))


class Transport:
    """Parks every message for a second."""

    def park(self, message: Message[None], **details: object) -> int:
        return 1_000


def test_messages_with_ever_new_names_cost_a_bounded_number_of_lines_and_bytes(broker):
    parking = Parking(transport=Transport())

    with capture_logs() as lines:
        for number in range(2 * MOST_LOGGED):
            held = MessageProxy(message(f"actor-{number}"))
            held.stuff_exception(ActorNotFound("unknown"))
            parking.before_nack(broker, held)

    assert len(lines) == len(parking._logged_s) == MOST_LOGGED


@pytest.fixture
def origin_broker() -> StubBroker:
    broker = StubBroker(middleware=[Options(), CurrentMessage(), Origin(), Envelope()])
    refuse_unknown(broker)
    return broker


@pytest.fixture
def actor(origin_broker) -> dramatiq.Actor[[], None]:
    return dramatiq.actor(lambda: None, broker=origin_broker, actor_name="actor")


def test_nothing_is_added_outside_of_requests_schedules_and_jobs_and_the_schedule_that_sends_is_named(actor):
    assert set(actor.send().options) == {"enqueued_at"}

    with sent_by_schedule("close_day" * 100):
        sent = actor.send()

    assert sent.options["origin"] == {"schedule": ("close_day" * 100)[:LONGEST_VALUE]}
    assert "origin" not in actor.send().options


def test_the_job_that_sends_is_the_parent_and_so_is_the_one_that_a_step_follows(origin_broker, actor):
    outer = actor.message()
    current = next(entry for entry in origin_broker.middleware if isinstance(entry, CurrentMessage))
    current.before_process_message(origin_broker, outer)
    child = actor.send()
    current.after_process_message(origin_broker, outer)
    with following("0d6f"):
        step = actor.send()

    assert (child.options["parent"], step.options["parent"]) == (outer.message_id, "0d6f")


def test_a_retry_keeps_what_the_first_send_wrote(origin_broker, actor):
    first = actor.send()
    with sent_by_schedule("close_day"), following("0d6f"):
        origin_broker.enqueue(first)

    assert set(first.options) == {"enqueued_at"}


def test_tags_of_actor_and_message_are_joined(origin_broker):
    tags = ("invoices", "monthly")
    tagged = dramatiq.actor(lambda: None, broker=origin_broker, actor_name="tagged", tags=tags)

    assert tagged.send().options["tags"] == ["invoices", "monthly"]
    assert tagged.send_with_options(tags=["acme", "monthly"]).options["tags"] == ["acme", "monthly", "invoices"]


@pytest.mark.parametrize("tags", ["invoices", [""], ["x" * 65], [7], ["a\nb"], ["t"] * 11, {"a": 1}])
def test_tags_that_are_no_short_texts_are_refused(actor, origin_broker, tags):
    with pytest.raises(InvalidOption, match="write at most 10 texts of 1 to 64 characters"):
        actor.send_with_options(tags=tags)
    with pytest.raises(InvalidOption, match="write at most 10 texts"):
        dramatiq.actor(lambda: None, broker=origin_broker, actor_name="tagged", tags=tags)


@pytest.mark.parametrize("origin", ["me", {"request": 1}, {"host": "a"}, {"user": "x" * 151}])
def test_an_origin_of_a_foreign_form_is_refused(actor, origin):
    with pytest.raises(InvalidOption, match="leave it out"):
        actor.send_with_options(origin=origin)


def handled(actor: Any, **fields: Any) -> tuple[dramatiq.Message[Any], HttpResponse]:
    request: HttpRequest = RequestFactory().get("/", headers=fields.pop("headers", {}))
    sent = []

    def view(request: HttpRequest) -> HttpResponse:
        for name, value in fields.items():
            setattr(request, name, value)
        sent.append(actor.send())
        return HttpResponse()

    response = request_origin(view)(request)
    return sent[0], response


def test_the_request_that_a_proxy_named_and_its_user_are_the_origin(actor):
    user = SimpleNamespace(is_authenticated=True, get_username=lambda: "mia")

    sent, response = handled(actor, headers={HEADER: "7c1f-09"}, _cached_user=user)

    assert (sent.options["origin"], response[HEADER]) == ({"request": "7c1f-09", "user": "mia"}, "7c1f-09")


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>"])
def test_a_request_without_a_usable_id_gets_one(actor, given):
    sent, response = handled(actor, headers={HEADER: given})

    assert sent.options["origin"] == {"request": response[HEADER]}
    assert response[HEADER] != given


def test_a_request_of_the_api_names_its_token(actor):
    sent, _ = handled(actor, auth=SimpleNamespace(prefix="ab12", name="nordwind-prod"))

    assert sent.options["origin"]["user"] == "token nordwind-prod"


@pytest.fixture
def async_broker() -> StubBroker:
    return StubBroker(middleware=[AsyncActors()])


@pytest.fixture
def worker(async_broker) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(async_broker, worker_threads=1, worker_timeout=10)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def _double(async_broker: StubBroker) -> Actor[[int], int]:
    @dramatiq.actor(broker=async_broker)
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    return double


def test_a_call_outside_of_a_worker_says_what_to_write(async_broker):
    double = _double(async_broker)

    words = (
        r"^actor double: it is async \(tests/unit/middleware/test_arguments\.py:\d+\), and this process is not a "
        r".*; write double\.send\(\.\.\.\), or asyncio\.run\(double\.fn\.__wrapped__\(\.\.\.\)\) to run it here$"
    )
    with pytest.raises(MissingWorker, match=words):
        double(4)
    assert asyncio.run(cast(Any, double.fn).__wrapped__(4)) == 8
    assert inspect.signature(double.fn).parameters.keys() == {"value"}


# asyncio ends a loop by the first two: it would be gone for every other coroutine of the process.
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_whatever_a_coroutine_raises_is_its_own_failure(async_broker, worker, raised):
    double = _double(async_broker)

    @dramatiq.actor(broker=async_broker)
    async def fails() -> None:
        raise raised("no such customer")

    with pytest.raises(raised, match="no such customer"):
        fails()
    assert double(4) == 8


def test_a_loop_that_a_coroutine_stops_is_noticed(async_broker, worker):
    @dramatiq.actor(broker=async_broker)
    async def stops() -> None:
        asyncio.get_running_loop().stop()

    assert all_work(worker)
    stops()
    wait_for(lambda: not all_work(worker))
    with pytest.raises(RuntimeError, match="the event loop of this worker has ended"):
        _double(async_broker)(4)


def test_an_interrupt_of_a_coroutine_that_has_not_begun_ends_its_call(async_broker, worker, monkeypatch):
    occupied, leave, interrupts, waiting = threading.Event(), threading.Event(), [], []

    @dramatiq.actor(broker=async_broker)
    async def occupies() -> None:
        occupied.set()
        leave.wait(30)

    def call() -> None:
        with pytest.raises(Interrupt) as interrupt:
            double(4)
        interrupts.append(interrupt)

    double = _double(async_broker)
    [loop] = [thread.loop for thread in threading.enumerate() if isinstance(thread, EventLoop)]
    put = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: waiting.append(put(*args)))
    occupying, calling = (threading.Thread(target=target, daemon=True) for target in (occupies, call))
    try:
        occupying.start()
        assert occupied.wait(30)
        calling.start()
        wait_for(lambda: len(waiting) == 2)
        raise_thread_exception(cast(int, calling.ident), Interrupt)
        wait_for(lambda: len(waiting) == 3)
    finally:
        leave.set()
    for thread in (occupying, calling):
        thread.join(30)

    assert interrupts


def test_what_a_coroutine_sets_on_the_loop_ends_with_it(async_broker, worker):
    seen = []

    @dramatiq.actor(broker=async_broker)
    async def sets() -> None:
        loop = asyncio.get_running_loop()
        seen.append((loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug()))
        seen.append(await asyncio.to_thread(lambda: threading.current_thread().name.startswith("asyncio")))
        loop.set_task_factory(lambda loop, coroutine: asyncio.Task(coroutine, loop=loop))
        loop.set_exception_handler(lambda loop, context: loop.stop())
        loop.set_debug(True)
        loop.set_default_executor(ThreadPoolExecutor(1))

    @dramatiq.actor(broker=async_broker)
    async def shuts_down() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()

    [loop] = [thread for thread in threading.enumerate() if isinstance(thread, EventLoop)]
    sets()
    sets()
    assert seen == [(None, None, False), True] * 2
    assert not loop.executor.was_shut_down
    shuts_down()
    assert loop.executor.was_shut_down


def test_other_actors_keep_their_function(async_broker):
    def triple(value: int) -> int:
        return 3 * value

    assert dramatiq.actor(broker=async_broker)(triple).fn is triple
