"""The page on deploys: its actors take the messages that it says they take."""

from __future__ import annotations

import inspect
import json
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker

from switchyard.middleware.arguments import misfit
from tests.factories.brokers import the_global_broker
from tests.unit.documentation.pages import code_blocks, read

ADDED, RENAMED = code_blocks(read("docs/how-to/deploy-new-code.md"), "python")


def shown(code: str) -> dict[str, Any]:
    """Run a block of the page and return its names."""
    names: dict[str, Any] = {}
    exec(compile(code, "deploy-new-code.md", "exec"), names)
    return names


def test_an_added_argument_with_a_default_takes_messages_of_before_and_after() -> None:
    function = shown(ADDED)["send_statement"]

    assert misfit(function, 2, {}.keys()) is None
    assert misfit(function, 2, {"language": "de"}.keys()) is None
    assert "language" in inspect.signature(function).parameters


def test_an_old_actor_hands_over_to_the_new_one() -> None:
    broker = StubBroker(middleware=[])
    with the_global_broker(broker):
        names = shown(RENAMED)

        names["charge"](7, 3)

    [sent] = [json.loads(body) for body in broker.queues["default"].queue]
    assert (sent["actor_name"], sent["args"], sent["kwargs"]) == ("charge_cents", [7], {"cents": 300})
    assert isinstance(names["charge"], dramatiq.Actor)
