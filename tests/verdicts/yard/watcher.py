"""Read the overview once a second and print what it says, one line of JSON each, until standard input ends."""

import html
import json
import re
import select
import sys
import time
from typing import Any

import django
from django.template.loader import render_to_string

from tests.factories.pages import NAMED

EVERY_S = 1.0


def pressed(button: Any) -> dict[str, str]:
    """Return the words and the address of a button, or of none."""
    return {"action": button.label, "href": button.href} if button else {"action": "", "href": ""}


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
        findings = [
            {"name": found.finding.name, "sentence": found.sentence, "then": found.finding.then or found.finding.next}
            | pressed(found.finding.button)
            for found in verdict.findings
        ]
        line = {
            "at": time.time(), "took_s": time.monotonic() - began, "level": verdict.level, "label": verdict.label,
            "sentence": verdict.sentence, "then": verdict.then, **pressed(verdict.button), "findings": findings,
            "on_page": verdict.sentence in page and pressed(verdict.button)["action"] in page,
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
