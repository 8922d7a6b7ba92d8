"""Checks of the annotations that arguments are compared with."""

from __future__ import annotations

from django.core.checks import CheckMessage, Warning
from dramatiq.broker import Broker

from switchyard.broker.queue.arguments.types import argument_types
from switchyard.middleware.places import place_of


def without_effect(broker: Broker) -> list[CheckMessage]:
    """Return the annotations that count as none: their arguments are not compared, and have the values of JSON."""
    found: list[CheckMessage] = []
    for actor in broker.actors.values():
        for name, (written, fault) in argument_types(actor.fn).faults.items():
            hint = "import its names outside of TYPE_CHECKING, or leave the annotation out"
            if "resolved" not in fault:
                hint = "annotate one of the types, or Any"
            fact = f"argument {name} has the annotation {written}, which counts as none: {fault}"
            subject = f"actor {actor.actor_name} ({place_of(actor.fn)})"
            found.append(Warning(fact, obj=subject, hint=hint, id="switchyard.W025"))
    return found
