"""Code that the documentation shows is code that works."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from apps.billing import signatures
from tests.unit.documentation.pages import PAGES, code_blocks, name_of, read


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_of_every_page_can_be_parsed(page: Path) -> None:
    for code in code_blocks(page.read_text(encoding="utf-8"), "python"):
        lines = [line for line in code.splitlines() if line.strip() != "..."]
        if lines[-1].startswith("@"):
            lines += ["def actor(): ..."]  # a decorator shown alone
        ast.parse("\n".join(lines))


def test_signature_as_the_guide_makes_it_is_accepted() -> None:
    [code] = code_blocks(read("docs/how-to/sign-payment-events.md"), "python")
    shown: dict[str, Any] = {}
    exec(compile(code, "sign-payment-events.md", "exec"), shown)
    secret = "a shared secret of 32 characters"

    body, headers = shown["signed"](secret, "event-1", {"type": "payment.received"})

    assert signatures.verify(secret, headers, body) == "event-1"
