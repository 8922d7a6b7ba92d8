"""The same mistake in an argument ends each command with the same exit code."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from switchyard.broker.interface import Facilities

pytestmark = pytest.mark.django_db


@pytest.fixture
def actor(facilities: Facilities) -> Iterator[Any]:
    """An actor with one argument."""
    broker = dramatiq.get_broker()

    @dramatiq.actor(actor_name="couple", queue_name="default", broker=broker)
    def couple(wagon: int) -> None:
        """Do nothing."""

    yield couple
    del broker.actors["couple"]


def exit_code(call: str) -> int:
    with pytest.raises(CommandError) as refused:
        call_command("switchyard", *shlex.split(call))
    return refused.value.returncode


@pytest.mark.parametrize(
    "call",
    [
        "audit list --since nonsense",
        "jobs list --since nonsense",
        "jobs list --state nonsense",
        "history list --since nonsense",
        "history list --after nonsense",
        "plan --since nonsense",
        "plan --queue default --arrivals often --duration p50=80ms",
        "jobs cancel",
        "jobs cancel --filter actr=1",
        "jobs cancel --filter actor",
        "deadletters requeue --since nonsense",
        "queues pause default --until yesterday",
        "actors pause couple --until yesterday",
        "actors pause couple --argument nope=1",
        "actors pause couple --argument wagon=[1]",
        "actors send couple --args nonsense",
        "topology render systemd --value nope=1",
    ],
)
def test_an_argument_that_is_none_is_exit_2(actor: Any, call: str) -> None:
    assert exit_code(call) == 2


@pytest.mark.parametrize("call", ["queues pause nope", "actors pause nope", "jobs show nope", "plan --since 1h"])
def test_something_unknown_is_exit_1(actor: Any, call: str) -> None:
    assert exit_code(call) == 1
