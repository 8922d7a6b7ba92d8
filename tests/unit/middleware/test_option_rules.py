"""Each option is validated where it is written: an actor's when it is declared, a message's when it is sent."""

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from periodiq import cron

from switchyard.broker.interface import facilities
from switchyard.middleware.errors import InvalidOption, UnknownOption, place_of
from switchyard.middleware.options import refuse_unknown, rules_of
from switchyard.middleware.rate_limits import rates_of
from switchyard.middleware.redaction import HIDDEN, redacted
from switchyard.wiring import in_order
from tests.unit.documentation.pages import read

# End of each message about an actor that is declared in this file.
HERE = r" \(tests/unit/middleware/test_option_rules\.py:\d+\)"
ACTORS_ONLY = {
    "backoff": [1], "permanent": ["ValueError"], "throws": ["ValueError"], "retry_when": "always",
    "rate_limit": "10/m", "concurrency": 1, "ordered_by": "to", "redact": ["to"], "periodic": "0 2 * * *",
    "catch_up": "all", "time_zone": "Europe/Berlin", "schedulable": True, "public": True, "unique_until": "started",
    "unique_for": 1, "on_duplicate": "replace",
}  # fmt: skip


@pytest.fixture
def broker() -> StubBroker:
    """A broker with the project's middleware, in its order, that sends to no server."""
    broker = StubBroker(middleware=in_order(facilities()))
    refuse_unknown(broker)
    return broker


def declare(broker: StubBroker, **options: Any) -> dramatiq.Actor[..., Any]:
    def send_mail(to: str = "") -> None: ...

    return dramatiq.actor(send_mail, broker=broker, **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("schedulable", "yes"),
        ("public", "yes"),
        ("max_retries", "5"),
        ("max_retries", -1),
        ("max_retries", True),
        ("min_backoff", -1),
        ("max_backoff", "1 h"),
        ("retry_when", lambda retries: True),
        ("retry_when", 3),
        ("throws", "ValueError"),
        ("throws", (ValueError, 1)),
        ("on_retry_exhausted", 5),
        ("max_age", -1),
        ("max_age", "1 h"),
        ("notify_shutdown", 1),
        ("backoff", 100),
        ("backoff", lambda: 100),
        ("permanent", "ValueError"),
        ("permanent", (ValueError, "KeyError")),
        ("permanent", (ValueError("no"),)),
        ("time_limit", 0),
        ("time_limit", "5s"),
        ("time_limit", float("nan")),
        ("time_limit", True),
        ("track", "no"),
        ("store_results", 1),
        ("alert", 0),
        ("rate_limit", "10"),
        ("rate_limit", []),
        ("rate_limit", ["10/m", 5]),
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", "5"),
        ("concurrency", []),
        ("concurrency", [1, "0 per to"]),
        ("ordered_by", 1),
        ("ordered_by", "to, from"),
        ("rate_limit", "10/m\n"),
        ("redact", "to"),
        ("redact", ("too",)),
        ("redact", (1,)),
        ("unique_key", 7),
        ("unique_key", "\1k"),
        ("unique_until", "ended"),
        ("unique_for", 0),
        ("unique_for", 1.5),
        ("on_duplicate", "drop"),
        ("on_commit", "billing"),
        ("on_success", 5),
        ("on_failure", ""),
        ("pipe_ignore", "yes"),
        ("priority", "high"),
        ("priority", 1.5),
        *(("rate_limit", spec) for spec in ("0/m", "10/y", "-1/s", "10/ m", 10, "", "1e3/s")),
        *(("unique_key", key) for key in ("", "x" * 201, b"report")),
    ],
)
def test_an_actor_with_an_unusable_option_is_refused_by_name_when_it_is_declared(broker, option, value):
    fact = rf"^actor send_mail: {option} is {re.escape(repr(value)[:100])}.*; write "
    with pytest.raises(InvalidOption, match=rf"(?s){fact}.*{HERE}$"):
        declare(broker, **{option: value})
    assert broker.actors == {}


def test_an_unknown_option_is_refused_with_actor_and_place_and_a_messages_when_it_is_sent(broker):
    words = r"^actor send_mail: unknown actor option 'max_retry' \(did you mean 'max_retries'\?\); known are .*"
    with pytest.raises(UnknownOption, match=words + HERE):
        declare(broker, max_retry=3)
    assert broker.actors == {}
    with pytest.raises(UnknownOption, match="message option 'ratelimit'"):
        declare(broker).send_with_options(ratelimit="1/s")


def test_the_place_of_an_async_actor_is_its_own(broker):
    async def fetch(url: str) -> None: ...

    with pytest.raises(InvalidOption, match=HERE):
        dramatiq.actor(fetch, broker=broker, max_retries="3")
    assert place_of(fetch) == f"tests/unit/middleware/test_option_rules.py:{fetch.__code__.co_firstlineno}"


@pytest.mark.parametrize("names", [("adress",), ("name", "adress"), ["adress"]])
@pytest.mark.parametrize("more", [False, True])
def test_a_misspelt_redacted_argument_is_refused_with_its_name(broker, names, more):
    def send(name: str, address: str) -> None: ...

    def send_any(name: str, address: str, **rest: str) -> None: ...

    words = r"redact is .*; the actor has no argument 'adress' \(did you mean 'address'\?\), it has name, address"
    with pytest.raises(InvalidOption, match=words):
        dramatiq.actor(send_any if more else send, broker=broker, redact=names)


def test_a_unique_key_with_an_argument_in_braces_is_refused_with_the_function_to_write(broker):
    def send(customer_id: int) -> None: ...

    words = re.escape("same key for every call; write unique_key=lambda customer_id: f'report:{customer_id}'")
    with pytest.raises(InvalidOption, match=words):
        dramatiq.actor(send, broker=broker, unique_key="report:{customer_id}")
    dramatiq.actor(send, broker=broker, unique_key="report:{custom}")


def test_a_class_of_exceptions_that_would_retry_every_failure_is_refused(broker):
    words = re.escape("write retry_when=lambda retries, exception: isinstance(exception, KeyError)")
    with pytest.raises(InvalidOption, match=words):
        declare(broker, retry_when=KeyError)


@pytest.mark.parametrize("key", [lambda: "x", lambda customer_id, month, other: "x", lambda *, customer: "x"])
def test_a_unique_key_that_cannot_be_called_with_the_arguments_is_refused(broker, key):
    def send(customer_id: int, month: str) -> None: ...

    words = re.escape("and gets the actor's arguments; write unique_key=lambda customer_id, month: ...")
    with pytest.raises(InvalidOption, match=words):
        dramatiq.actor(send, broker=broker, unique_key=key)


@pytest.mark.parametrize(
    "key",
    [
        *(lambda c: "x", lambda customer_id, month: "x", lambda *, customer_id: "x", lambda *given, **more: "x"),
        "{}".format,
    ],
)
def test_a_unique_key_that_some_call_fits_is_accepted(broker, key):
    def send(customer_id: int, month: str = "") -> None: ...

    assert dramatiq.actor(send, broker=broker, unique_key=key).options["unique_key"] is key


def test_an_actor_that_takes_any_argument_may_hide_any(broker):
    def send(address: str, **rest: str) -> None: ...

    actor = dramatiq.actor(send, broker=broker, redact=("address", "addresses", "iban"))

    assert redacted(actor, {"args": ["a"], "kwargs": {"iban": "i", "n": 1}}) == {
        "args": [HIDDEN],
        "kwargs": {"iban": HIDDEN, "n": 1},
    }


def test_usable_options_are_accepted_and_none_is_the_same_as_leaving_them_out(broker):
    usable: dict[str, Any] = {
        "max_retries": 0, "min_backoff": 0, "max_backoff": 1.5, "retry_when": lambda retries, exception: False,
        "throws": ValueError, "on_retry_exhausted": "tell", "max_age": 3_600_000, "notify_shutdown": True,
        "backoff": lambda retry: retry, "permanent": (ValueError,), "time_limit": 0.5, "redact": ["to"],
        "periodic": cron("0 2 * * *"), "on_failure": "tell",
    }  # fmt: skip
    none = dict.fromkeys(("backoff", "permanent", "track", "alert", "rate_limit", "redact", "unique_key", "on_success"))

    actor = declare(broker, **usable | {"actor_name": "usable"})
    without = declare(broker, **none | {"actor_name": "without"})

    assert actor.options == usable
    assert without.options.keys() <= {"time_limit"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_retries", "5"),
        ("max_retries", -1),
        ("min_backoff", "5 s"),
        ("max_backoff", -1),
        ("on_retry_exhausted", 5),
        ("max_age", "1 h"),
        ("notify_shutdown", "yes"),
        ("time_limit", 0),
        ("time_limit", "5s"),
        ("time_limit", 10**9),
        ("track", 1),
        ("store_results", "yes"),
        ("alert", "no"),
        ("priority", "high"),
        ("unique_key", lambda to: to),
        ("on_commit", "billing"),
        ("pipe_ignore", "yes"),
        ("pipe_target", "next"),
        ("delay", 10**15),
        ("attempts", 3),
        ("generation", 1),
    ],
)
@pytest.mark.parametrize("way", ["send_with_options", "enqueue", "pipeline", "group", "step of a pipeline"])
def test_a_message_with_an_unusable_option_is_refused_by_name_when_it_is_sent(broker, option, value, way):
    actor = declare(broker)
    message: Message[Any] = Message("default", "send_mail", (), {}, {option: value})
    pipeline = dramatiq.pipeline([actor.message(), message], broker=broker)

    with pytest.raises(InvalidOption, match=rf"^actor send_mail: {option} is "):
        if way == "send_with_options":
            actor.send_with_options(**{option: value})
        elif way == "enqueue":
            broker.enqueue(message)
        elif way == "pipeline":
            dramatiq.pipeline([message, *([] if option == "pipe_target" else [actor.message()])], broker=broker).run()
        elif way == "group":
            dramatiq.group([message], broker=broker).run()
        else:
            pipeline.run()
    assert broker.queues["default"].qsize() == 0


@pytest.mark.parametrize("option", ACTORS_ONLY)
def test_an_option_that_only_actors_can_have_is_refused_as_a_messages(broker, option):
    actor = declare(broker)

    with pytest.raises(UnknownOption, match=rf"^actor send_mail: {option} is not an option of a message, only"):
        actor.send_with_options(**{option: ACTORS_ONLY[option]})
    with pytest.raises(UnknownOption):
        broker.enqueue(actor.message_with_options(**{option: ACTORS_ONLY[option]}))


@pytest.mark.parametrize("delay", [-5, 0, timedelta(seconds=-1)])
def test_a_negative_delay_and_a_fraction_are_accepted_as_by_dramatiq(broker, delay):
    actor = declare(broker)
    actor.send_with_options(delay=delay)
    steps = [actor.message(), actor.message_with_options(delay=50.5), actor.message_with_options(delay=-5)]
    dramatiq.pipeline(steps, broker=broker).run()


@pytest.mark.parametrize(
    ("option", "values", "remedy"),
    [
        ("delay", [float("nan"), float("inf"), 366 * 24 * 3_600_000 + 0.5, 10**15, True], "write milliseconds, from 0"),
        (
            "eta", [datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00", 1.5, True, -1, 10**15],
            "eta is milliseconds since the epoch; or write delay=10_000",
        ),
        ("owner", [1, ["user:1"], "x" * 201], "write text of at most 200 characters"),
    ],
)  # fmt: skip
def test_a_time_or_an_owner_that_no_worker_could_read_is_refused(broker, option, values, remedy):
    actor = declare(broker)
    for value in values:
        with pytest.raises(InvalidOption, match=rf"^actor send_mail: {option} is .*; {remedy}"):
            actor.send_with_options(**{option: value})
    assert broker.queues["default"].qsize() == 0


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda *given: given[5], r"IndexError, mend the function \(.*test_option_rules.py:\d+\)"),
        (lambda: "k", "TypeError: .* takes 0 positional arguments but 1 was given, mend"),
    ],
)
def test_a_unique_key_whose_function_fails_is_refused_and_named_with_its_error(broker, key, words):
    with pytest.raises(InvalidOption, match=rf"unique_key is .*; it raised {words}"):
        declare(broker, unique_key=key).send("ann@example.org")


def test_every_option_has_a_rule_and_the_reference_says_who_can_have_it(broker):
    rules = rules_of(broker)
    lists = re.findall(
        r"^- For (actors alone|messages alone|both): (.+(?:\n  .+)*)",
        read("docs/reference/actor-options.md"),
        re.MULTILINE,
    )
    who = {name: kind for kind, names in lists for name in re.findall(r"`(\w+)`", names)}

    assert set(broker.actor_options) <= rules.keys()
    assert {name: (kind != "messages alone", kind != "actors alone") for name, kind in who.items()} == {
        name: (rule.of_actor is not None, rule.of_message is not None) for name, rule in rules.items()
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unique_for": 1_000, "on_duplicate": "replace"}, "unique_for is 1000; write it without on_duplicate"),
        ({"unique_for": 1_000, "unique_until": "started"}, "unique_for is 1000; write it without unique_until"),
        ({"unique_until": "done", "on_duplicate": "delay"}, "unique_until is 'done'; write \"started\""),
    ],
)
def test_policies_of_a_unique_key_that_contradict_each_other_are_refused(broker, options, words):
    with pytest.raises(InvalidOption, match=words):
        declare(broker, unique_key="k", **options)


def test_a_message_with_further_steps_is_not_replaced(broker):
    mail = declare(broker, unique_key="k", on_duplicate="replace")
    broker.declare_queue("default")

    with pytest.raises(InvalidOption, match="replaces the whole message, with its further steps or its group"):
        broker.enqueue((mail.message("a") | mail.message("b")).messages[0])


@pytest.mark.parametrize("key", ["", "x" * 201, 7, b"report"])
def test_a_unique_key_that_is_no_short_text_is_refused(broker, key):
    with_function = dramatiq.actor(lambda: None, broker=broker, actor_name="with_function", unique_key=lambda: key)

    for send in (lambda: declare(broker).send_with_options(unique_key=key), with_function.send):
        with pytest.raises(InvalidOption, match=r"unique_key is .*; write 1 to 200 characters"):
            send()


def test_an_actors_unique_key_is_made_of_the_arguments_and_a_messages_own_goes_first(broker):
    @dramatiq.actor(broker=broker, unique_key=lambda customer_id, month="1": f"{customer_id}-{month}")
    def report(customer_id: int, month: str = "1") -> None: ...

    @dramatiq.actor(broker=broker, unique_key="only one")
    def sweep() -> None: ...

    assert report.send(3, month="2").options["unique_key"] == "3-2"
    assert report.send_with_options(args=(3,), unique_key="own").options["unique_key"] == "own"
    assert sweep.send().options["unique_key"] == "only one"


def test_rates_are_read_with_their_unit():
    assert [(rate.limit, rate.window_ms) for rate in rates_of(["10/m", "1/d"])] == [(10, 60_000), (1, 86_400_000)]


def test_redacted_arguments_are_hidden_by_name_and_by_place(broker, caplog):
    def mail(to: str, template: str, token: str = "") -> None: ...

    actor = dramatiq.Actor(
        mail, broker=broker, actor_name="mail", queue_name="default", priority=0, options={"redact": ("to", "token")}
    )

    with caplog.at_level(logging.DEBUG):
        actor("hunter2@b.example", "welcome")
    assert "hunter2" not in caplog.text and "Completed after" in caplog.text

    shown = redacted(actor, {"args": ["a@b.example", "welcome"], "kwargs": {"token": "t"}, "other": 1})

    assert shown == {"args": [HIDDEN, "welcome"], "kwargs": {"token": HIDDEN}, "other": 1}
