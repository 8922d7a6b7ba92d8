"""Filters for the pages of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template
from dramatiq.message import Message

from switchyard.broker.clock import datetime_of
from switchyard.console.formatting import ago
from switchyard.jobs.shown_arguments import excerpt, shown_arguments, written

register = template.Library()


@register.filter
def get_item(mapping: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name that a variable holds."""
    return mapping.get(name, "")


@register.filter
def words(name: str) -> str:
    """Return an identifier such as ``time_limit`` as words."""
    return name.replace("_", " ")


@register.filter
def as_json(value: Any) -> str:
    """Return an argument as JSON; a hidden one as its mark."""
    return written(value)


@register.filter
def add_units(x: float, more: float) -> float:
    """Return a place that lies further to the right in a picture."""
    return x + more


@register.filter
def arguments_of(message: Message[Any]) -> str:
    """Return the arguments of a message on one line, secret ones hidden; "" where it has none."""
    return excerpt(shown_arguments(message.actor_name, message.args, message.kwargs))


@register.filter
def sent_ago(message: Message[Any]) -> str:
    """Return how long ago a message was sent first."""
    return ago(datetime_of(message.message_timestamp))
