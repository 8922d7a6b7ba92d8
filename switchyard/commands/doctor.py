"""``manage.py switchyard doctor``: check everything, and report causes and remedies."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from switchyard import __version__
from switchyard.console.commands import PrintingCommand
from switchyard.console.formatting import counted
from switchyard.middleware.logs import printable
from switchyard.operations.findings.examine import examine
from switchyard.operations.findings.finding import EXIT_CODES, Finding, Severity, ranked, worst

EXAMPLES = """examples:
  manage.py switchyard doctor
  manage.py switchyard doctor --json      for a program; exit 0 healthy, 1 warnings, 2 errors"""


class Command(PrintingCommand):
    """Check the yard; exit 0 when healthy, 1 for warnings, 2 for errors."""

    help = "Check configuration, broker, database, pools, queues and scheduler; report defects, causes and remedies."
    requires_system_checks = []  # the command runs them itself and reports every one
    examples = EXAMPLES

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks, print the findings, and exit with the code of the worst."""
        started = time.monotonic()
        findings = examine()
        took_ms = int((time.monotonic() - started) * 1000)
        text = lines(findings, self._paint, took_ms=took_ms)
        self.answer(text, as_json(findings, took_ms=took_ms), indent=2)
        if code := EXIT_CODES[worst(findings)]:
            sys.exit(code)

    def _paint(self, severity: str, text: str) -> str:
        styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "error": self.style.ERROR}
        return styles[severity](text) if severity in styles else text


VERDICTS: dict[Severity, str] = {"ok": "healthy", "warning": "warnings", "error": "errors"}
WIDTH = max(map(len, EXIT_CODES))
# Fields in JSON; the others are of pages.
PUBLISHED = ("group", "code", "severity", "seen", "cause", "next", "subject")
INDENT = " " * (WIDTH + 4)


def as_json(findings: list[Finding], *, took_ms: int) -> dict[str, Any]:
    """Return the JSON shape documented in docs/reference/commands.md."""
    severity = worst(findings)
    return {
        "version": __version__,
        "verdict": VERDICTS[severity],
        "exit_code": EXIT_CODES[severity],
        "took_ms": took_ms,
        "counts": {level: sum(found.severity == level for found in findings) for level in EXIT_CODES},
        "findings": [{name: getattr(found, name) for name in PUBLISHED} for found in findings],
    }


def lines(findings: list[Finding], paint: Callable[[str, str], str], *, took_ms: int) -> Iterator[str]:
    """Yield the report: a paragraph for each group, then the verdict; ``paint`` colours a text by its severity."""
    yield f"Switchyard {__version__}"
    yield ""
    groups = list(dict.fromkeys(found.group for found in findings))
    for group in groups:
        yield group
        for found in (found for found in findings if found.group == group):
            yield f"  {paint(found.severity, found.severity.ljust(WIDTH))}  {printable(found.seen)}"
            if found.severity in ("warning", "error"):
                texts = {"why": found.cause, "then": found.then, "next": found.next}
                yield from (f"{INDENT}{word}: {printable(text)}" for word, text in texts.items() if text)
        yield ""
    yield _verdict(findings, paint, took_ms)


def _verdict(findings: list[Finding], paint: Callable[[str, str], str], took_ms: int) -> str:
    severity = worst(findings)
    if severity == "ok":
        return paint("ok", f"healthy: no defect ({len(findings)} checks in {took_ms / 1000:.1f} s)")
    numbers = ((level, sum(found.severity == level for found in findings)) for level in ("error", "warning"))
    counts = [counted(count, level) for level, count in numbers if count]
    order = ranked(found for found in findings if EXIT_CODES[found.severity])
    # Of those that the overview does not lead with an error comes first.
    leads = (each for each in order if each.level in ("bad", "warn") or each.finding.severity == severity)
    first = next(leads).clause.removesuffix(".")
    return paint(severity, f"{' and '.join(counts)}; begin with: {printable(first)}")
