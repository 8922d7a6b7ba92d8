"""Output of findings as text or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from switchyard.middleware.logs import printable
from switchyard.operations.findings.finding import EXIT_CODES, Finding, Severity, worst

VERDICTS: dict[Severity, str] = {"ok": "healthy", "warning": "warnings", "error": "errors"}
WIDTH = max(map(len, EXIT_CODES))
# Fields in JSON; the others are of pages.
PUBLISHED = ("group", "code", "severity", "seen", "cause", "next", "subject")
INDENT = " " * (WIDTH + 4)


def as_json(findings: list[Finding], *, took_ms: int) -> dict[str, Any]:
    """Return the JSON shape documented in docs/reference/commands.md."""
    severity = worst(findings)
    return {
        "verdict": VERDICTS[severity],
        "exit_code": EXIT_CODES[severity],
        "took_ms": took_ms,
        "counts": {level: sum(found.severity == level for found in findings) for level in EXIT_CODES},
        "findings": [{name: getattr(found, name) for name in PUBLISHED} for found in findings],
    }


def lines(findings: list[Finding], paint: Callable[[str, str], str], *, took_ms: int) -> Iterator[str]:
    """Yield the report: a paragraph for each group, then the verdict.

    Args:
        paint: Function of severity and text that returns the text, coloured on a terminal.
    """
    groups = list(dict.fromkeys(found.group for found in findings))
    for group in groups:
        yield group
        for found in (found for found in findings if found.group == group):
            yield f"  {paint(found.severity, found.severity.ljust(WIDTH))}  {printable(found.seen)}"
            if found.severity in ("warning", "error"):
                yield from (
                    f"{INDENT}{word}: {printable(text)}"
                    for word, text in (("why", found.cause), ("next", found.next))
                    if text
                )
        yield ""
    yield _verdict(findings, paint, took_ms)


def _verdict(findings: list[Finding], paint: Callable[[str, str], str], took_ms: int) -> str:
    severity = worst(findings)
    if severity == "ok":
        return paint("ok", f"healthy: no defect ({len(findings)} checks in {took_ms / 1000:.1f} s)")
    counts = [
        f"{count} {level}{'s' if count > 1 else ''}"
        for level in ("error", "warning")
        if (count := _count(findings, level))
    ]
    first = next(found for found in findings if found.severity == severity)
    return paint(severity, f"{' and '.join(counts)}; begin with: {printable(first.seen)}")


def _count(findings: Iterable[Finding], severity: str) -> int:
    return sum(found.severity == severity for found in findings)
