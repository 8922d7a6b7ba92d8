"""Misspelt options and wrong calls fail where they are written."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.middleware.arguments import Arguments
from switchyard.middleware.envelope import Envelope
from switchyard.middleware.errors import InvalidOption, UnknownOption
from switchyard.middleware.options import Options, refuse_unknown
from switchyard.middleware.rate_limits import RateLimits, rates_of
from switchyard.middleware.redaction import HIDDEN, Redaction, redacted
from switchyard.middleware.unique_keys import UniqueKeys


@pytest.fixture
def broker() -> StubBroker:
    limits: Any = RateLimits(windows=None, transport=None)  # type: ignore[arg-type]  declared only, never run
    broker = StubBroker(middleware=[Options(), Arguments(), UniqueKeys(), limits, Redaction(), Envelope()])
    refuse_unknown(broker)
    return broker


def test_a_misspelt_message_option_is_refused_when_it_is_sent(broker: StubBroker) -> None:
    @dramatiq.actor(broker=broker)
    def actor() -> None: ...

    with pytest.raises(UnknownOption, match="message option 'ratelimit'"):
        actor.send_with_options(ratelimit="1/s")


@pytest.mark.parametrize("key", ["", "x" * 201, 7, b"report"])
def test_a_unique_key_that_is_no_short_text_is_refused(broker: StubBroker, key: Any) -> None:
    @dramatiq.actor(broker=broker)
    def actor() -> None: ...

    @dramatiq.actor(broker=broker, unique_key=lambda: key)
    def with_function() -> None: ...

    for send in (lambda: actor.send_with_options(unique_key=key), with_function.send):
        with pytest.raises(InvalidOption, match=r"unique_key is .*; write 1 to 200 characters"):
            send()
    with pytest.raises(InvalidOption, match="unique_key"):

        @dramatiq.actor(broker=broker, unique_key=key)
        def declared() -> None: ...


def test_an_actors_unique_key_is_made_of_the_arguments_and_a_messages_own_goes_first(broker: StubBroker) -> None:
    @dramatiq.actor(broker=broker, unique_key=lambda customer_id, month="1": f"{customer_id}-{month}")
    def report(customer_id: int, month: str = "1") -> None: ...

    @dramatiq.actor(broker=broker, unique_key="only one")
    def sweep() -> None: ...

    assert report.send(3, month="2").options["unique_key"] == "3-2"
    assert report.send_with_options(args=(3,), unique_key="own").options["unique_key"] == "own"
    assert sweep.send().options["unique_key"] == "only one"


@pytest.mark.parametrize("spec", ["10", "0/m", "10/y", "-1/s", "10/ m", 10, "", "1e3/s"])
def test_a_rate_that_cannot_be_read_is_refused_when_the_actor_is_declared(broker: StubBroker, spec: Any) -> None:
    with pytest.raises(InvalidOption, match="rate_limit is"):

        @dramatiq.actor(broker=broker, rate_limit=spec)
        def actor() -> None: ...


def test_rates_are_read_with_their_unit() -> None:
    assert [(rate.limit, rate.window_ms) for rate in rates_of(["10/m", "1/d"])] == [(10, 60_000), (1, 86_400_000)]


def test_redacted_arguments_are_hidden_by_name_and_by_place(
    broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def mail(to: str, template: str, token: str = "") -> None: ...

    actor = dramatiq.Actor(
        mail, broker=broker, actor_name="mail", queue_name="default", priority=0, options={"redact": ("to", "token")}
    )

    with caplog.at_level(logging.DEBUG):
        actor("hunter2@b.example", "welcome")
    assert "hunter2" not in caplog.text
    assert "Completed after" in caplog.text

    shown = redacted(actor, {"args": ["a@b.example", "welcome"], "kwargs": {"token": "t"}, "other": 1})

    assert shown == {"args": [HIDDEN, "welcome"], "kwargs": {"token": HIDDEN}, "other": 1}
