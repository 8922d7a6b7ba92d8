"""The pages of the documentation: paths, text, code blocks and anchors."""

import re
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
PAGES = sorted(
    [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")), *(ROOT / "docs").rglob("*.md")]
)


def read(path: str) -> str:
    """Return a page's text by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    """Return a page's path from the root."""
    return str(page.relative_to(ROOT))


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, those inside of lists without their indent."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in blocks]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    headings = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
