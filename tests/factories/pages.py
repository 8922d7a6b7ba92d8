"""Pages of the room as people read them."""

import html
import re
from typing import Any

# Names in sentences: no space stands around them.
NAMED = re.compile(r'<a class="sy-link sy-code" href="[^"]*">(.*?)</a>')


def text_of(page: Any) -> str:
    page = NAMED.sub(r"\1", page if isinstance(page, str) else page.content.decode())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
