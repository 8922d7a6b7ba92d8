"""Read the overview once a second and print what it says, one line of JSON each, until standard input ends."""

from __future__ import annotations

import html
import json
import re
import select
import sys
import time

import django
from django.template.loader import render_to_string

NAMED = re.compile(r'<a class="sy-link sy-code" href="[^"]*">(.*?)</a>')  # a name in a sentence
EVERY_S = 1.0


def main() -> None:
    """Print lines until the parent closes the pipe."""
    django.setup()
    from switchyard.operations.overview import overview

    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        began = time.monotonic()
        room = overview()
        page = NAMED.sub(r"\1", render_to_string("switchyard_operations/live.html", {"room": room}))
        page = html.unescape(re.sub(r"\s+", " ", page))
        verdict = room.verdict
        line = {
            "at": time.time(),
            "took_s": time.monotonic() - began,
            "level": verdict.level,
            "label": verdict.label,
            "sentence": verdict.sentence,
            "then": verdict.then,
            "action": verdict.button.label if verdict.button else "",
            "href": verdict.button.href if verdict.button else "",
            "on_page": verdict.sentence in page and (verdict.button.label if verdict.button else "") in page,
            "findings": [
                {
                    "name": found.finding.name,
                    "sentence": found.sentence,
                    "then": found.finding.then or found.finding.next,
                    "action": found.finding.button.label if found.finding.button else "",
                    "href": found.finding.button.href if found.finding.button else "",
                }
                for found in verdict.findings
            ],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
