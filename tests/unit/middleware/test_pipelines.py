"""A job that nothing follows sends nothing; one with a next step or a callback sends it."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Callbacks, Pipelines

from switchyard.broker.errors import BrokerUnavailable
from switchyard.middleware.callbacks import DurableCallbacks, DurablePipelines, report_failure

FAILURE = ValueError("no")


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[DurablePipelines(), DurableCallbacks()])

    @dramatiq.actor(broker=broker)
    def alone(*given: Any) -> None: ...

    @dramatiq.actor(broker=broker, on_success="told", on_failure="told")
    def followed(*given: Any) -> None: ...

    @dramatiq.actor(broker=broker)
    def told(*given: Any) -> None: ...

    return broker


def _sent(broker: StubBroker, middleware: Any, message: MessageProxy, exception: BaseException | None) -> list[Any]:
    if isinstance(middleware, DurableCallbacks) and exception is not None:
        report_failure(broker, message, exception)
    else:
        middleware.after_process_message(broker, message, result=1, exception=exception)
    queue = broker.queues["default"]
    return [dramatiq.Message.decode(queue.get_nowait()) for _ in range(queue.qsize())]


@pytest.mark.parametrize("actor", ["alone", "followed"])
@pytest.mark.parametrize("exception", [None, FAILURE])
@pytest.mark.parametrize("option", [None, "pipe_target", "on_success", "on_failure"])
def test_what_follows_is_what_follows_in_dramatiq(
    broker: StubBroker, actor: str, exception: BaseException | None, option: str | None
) -> None:
    options: dict[str, Any] = {option: "told"} if option else {}
    if option == "pipe_target":
        options = {option: broker.get_actor("told").message(5).asdict()}
    message = MessageProxy(broker.get_actor(actor).message_with_options(args=(3,), **options))

    for ours, theirs in ((DurablePipelines(), Pipelines()), (DurableCallbacks(), Callbacks())):
        expected = [(each.actor_name, each.args) for each in _sent(broker, theirs, message, exception)]
        assert [(each.actor_name, each.args) for each in _sent(broker, ours, message, exception)] == expected


@pytest.mark.parametrize("callback", ["told", "of newer code"])
def test_a_callback_that_is_sent_again_after_a_lost_answer_is_the_same_message(
    broker: StubBroker, monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    enqueue, sent = broker.enqueue, []

    def lose_answer(message: dramatiq.Message[Any]) -> dramatiq.Message[Any]:
        sent.append(message.message_id)
        if len(sent) == 1:
            raise BrokerUnavailable("enqueue", "timed out")
        return enqueue(message)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    monkeypatch.setattr(broker, "enqueue", lose_answer)
    message = MessageProxy(broker.get_actor("alone").message_with_options(args=(3,), on_success=callback))

    DurableCallbacks().after_process_message(broker, message, result=1)

    assert len(sent) == 2
    assert len(set(sent)) == 1
