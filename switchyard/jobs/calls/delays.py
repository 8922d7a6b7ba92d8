"""Delays of jobs that are sent through the services: one option, ``delay_ms``, told from the arguments of an actor."""

from __future__ import annotations

from typing import Any

from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.middleware.arguments import signature_of, wrong_call
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption
from switchyard.middleware.option_rules import usable_delay

# Names by which Dramatiq, Celery and others delay a message.
DELAYS = ("delay", "countdown", "eta", "delay_s", "delay_seconds")


def refuse_foreign_delay(actor: Actor[Any, Any], message: Message[Any]) -> None:
    """Refuse an option of another call that would be an argument the actor does not have.

    Raises:
        ArgumentMismatch: with the option that delays here.
    """
    names, own = message.kwargs.keys(), signature_of(actor.fn).parameters
    delay = next((name for name in DELAYS if name in names and name not in own), "")
    if delay and (wrong := wrong_call(actor, len(message.args), names)) is not None:
        wrong += f"; instead of {delay} write delay_ms=10_000, in milliseconds"
        raise ArgumentMismatch(actor.actor_name, wrong, actor.fn)


def require_delay(actor: Actor[Any, Any], message: Message[Any], delay_ms: Any) -> None:
    """Refuse a delay that the broker would refuse at the commit, and one that may be meant as the actor's argument.

    Raises:
        ArgumentMismatch: the actor has an argument ``delay_ms``, which is not passed.
        InvalidOption: it is no number of milliseconds up to a year.
    """
    if "delay_ms" in [*signature_of(actor.fn).parameters][len(message.args) :] and "delay_ms" not in message.kwargs:
        fact = "delay_ms is an option of this call and an argument of the actor"
        remedy = "to pass it to the actor write kwargs={'delay_ms': ...}, also beside the option"
        raise ArgumentMismatch(actor.actor_name, f"{fact}; {remedy}", actor.fn)
    if remedy := usable_delay(delay_ms):
        raise InvalidOption(actor.actor_name, "delay_ms", delay_ms, remedy)
