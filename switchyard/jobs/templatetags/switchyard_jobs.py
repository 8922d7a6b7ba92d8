"""Filters of the room's pages: texts of jobs, and links from the names of jobs, queues, actors and workers."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any

import dramatiq
from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from switchyard.broker.clock import datetime_of
from switchyard.broker.stores.batches import batch_of
from switchyard.conf import declared_yard
from switchyard.console import links
from switchyard.console.formatting import pause_facts
from switchyard.console.links import actor_url, queue_url

register = template.Library()

for thing in ("admin", "job", "queue", "actor", "letter", "alert", "schedule", "steps", "worker"):
    register.filter(f"{thing}_url", getattr(links, f"{thing}_url"))
register.filter(links.path_of)
register.filter(batch_of)
register.filter(pause_facts)


WORD = re.compile(r"([\w-]+)")


@register.filter
def named(sentence: str, subject: str = "") -> SafeString:
    """Return a sentence escaped, with the names of actors and its subject as links, and code between backticks.

    A name without an underscore may be an ordinary word: it is a link only as the sentence's subject, the first time.
    """
    actors, queues = dramatiq.get_broker().actors, {queue.name for queue in declared_yard().queues}
    parts: list[str] = []
    left = subject
    for place, text in enumerate(sentence.split("`") if sentence.count("`") % 2 == 0 else [sentence]):
        if place % 2:
            parts.append(format_html('<code class="sy-code">{}</code>', text))
            continue
        for word in WORD.split(text):
            address = ""
            if word == left or (word in actors and "_" in word):
                address = queue_url(word) if word in queues else actor_url(word) if word in actors else ""
            if address and word == left:
                left = ""
            parts.append(format_html('<a class="sy-link sy-code" href="{}">{}</a>', address, word) if address else word)
    return format_html_join("", "{}", ((part,) for part in parts))


@register.filter
def get_item(mapping: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name that a variable holds."""
    return mapping.get(name, "")


@register.filter
def words(name: str) -> str:
    """Return an identifier such as ``time_limit`` as words."""
    return name.replace("_", " ")


@register.filter
def moment(at_ms: int | None) -> datetime | None:
    """Return a time in ms since the epoch as one in UTC."""
    return None if at_ms is None else datetime_of(at_ms)


def _late(path: str) -> Callable[[Any], Any]:
    """Return a function of the jobs' modules that is imported with its first call."""
    module, _, name = path.rpartition(".")
    return lambda value: getattr(import_module(f"switchyard.jobs.{module}"), name)(value)


# Checks load the filters of all apps, and show no job.
for name, path in (
    ("error_line", "presentation.error_line"),
    ("arguments_line", "presentation.arguments_line"),
    ("arguments_of", "presentation.message_line"),
    ("as_json", "presentation.written"),
    ("limit_ms", "queries.limit_of"),
):
    register.filter(name, _late(path))
