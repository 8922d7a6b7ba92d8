"""Every field that our code writes into a log line is on the page, and no other."""

from __future__ import annotations

import ast

from tests.unit.documentation.pages import ROOT
from tests.unit.documentation.test_reference import first_column

PAGE = "docs/reference/log-lines.md"
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
# Of structlog itself, of each line, and of dicts that are passed on.
ELSEWHERE = frozenset({"event", "level", "logger", "timestamp", "release", "request", "trace_id", "span_id"}) | {
    *("attempt", "raised")
}


def test_every_field_of_a_line_is_described_and_no_other() -> None:
    written = set()
    for folder in ("middleware", "switchyard", "apps", "project"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(ast.Attribute(ast.Name("log" | "write"), level)) if level in LEVELS:
                        written |= {keyword.arg for keyword in node.keywords} - {None, "exc_info"}

    assert first_column(PAGE) == written | ELSEWHERE
