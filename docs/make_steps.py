"""Write the page of steps that the room shows from ``docs/how-to/triage.md``: the wheel has no documentation.

python -m docs.make_steps [--check]

With ``--check`` nothing is written; exits 1 when the page differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from markdown_it import MarkdownIt

FOLDER = Path(__file__).resolve().parents[1]
SOURCE = FOLDER / "docs" / "how-to" / "triage.md"
PAGE = FOLDER / "switchyard/frame/templates/switchyard_frame/steps_text.html"
HEADING = re.compile(r"<(h[23])>(.+?)</\1>")
# Other pages of the documentation are named, and not linked: they are not in the wheel.
ELSEWHERE = re.compile(r'<a href="(?!#)[^"]*">(.+?)</a>')


def page() -> str:
    """Return the text of the page as HTML, with the anchors of its headings."""
    text = MarkdownIt("commonmark").enable("table").render(SOURCE.read_text(encoding="utf-8"))
    text = HEADING.sub(lambda found: f'<{found[1]} id="{_anchor(found[2])}">{found[2]}</{found[1]}>', text)
    text = ELSEWHERE.sub(r"<em>\1</em>", text)
    text = text.replace("<h1>", '<h1 class="sy-title">').replace("<code>", '<code class="sy-code">')
    text = text.replace("<th>", '<th scope="col">').replace('<a href="#', '<a class="sy-link" href="#')
    text = text.replace("<table>", '<div class="sy-scroll"><table class="sy-table">').replace(
        "</table>", "</table></div>"
    )
    if "{%" in text or "{{" in text:
        raise ValueError(f"{SOURCE} has the marks of a template, which the page would obey; write them otherwise")
    return f"{{# Made by python -m docs.make_steps from {SOURCE.relative_to(FOLDER)}. #}}\n{text}"


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page differs")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{PAGE} differs; run: python -m docs.make_steps\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
