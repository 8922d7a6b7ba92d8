"""Filter that makes links of the names in a verdict's sentences."""

from __future__ import annotations

import re

import dramatiq
from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from switchyard.conf import declared_yard
from switchyard.console.links import actor_url, queue_url

register = template.Library()

WORD = re.compile(r"[\w-]+")
BACKTICK = "`"


@register.filter
def named(sentence: str, subject: str = "") -> SafeString:
    """Return a sentence escaped, with the names of actors and its subject as links, and code between backticks.

    A name without an underscore may be an ordinary word: it is a link only as the sentence's subject, the first time.
    """
    actors, queues = dramatiq.get_broker().actors, {queue.name for queue in declared_yard().queues}
    parts: list[str] = []
    left = subject
    for place, text in enumerate(sentence.split(BACKTICK) if sentence.count(BACKTICK) % 2 == 0 else [sentence]):
        if place % 2:
            parts.append(format_html('<code class="sy-code">{}</code>', text))
            continue
        at = 0
        for word in WORD.finditer(text):
            name = word[0]
            if not (name == left or (name in actors and "_" in name)):
                continue
            address = queue_url(name) if name in queues else actor_url(name) if name in actors else ""
            if not address:
                continue
            left = "" if name == left else left
            parts += (format_html("{}", text[at : word.start()]), _link(address, name))
            at = word.end()
        parts.append(format_html("{}", text[at:]))
    return format_html_join("", "{}", ((part,) for part in parts))


def _link(address: str, name: str) -> SafeString:
    return format_html('<a class="sy-link sy-code" href="{}">{}</a>', address, name)
