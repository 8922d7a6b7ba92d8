"""``manage.py switchyard doctor``: check everything, and report causes and remedies."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from switchyard.console.command_help import show_examples
from switchyard.console.printing_command import PrintingCommand
from switchyard.doctor.printing import as_json, lines
from switchyard.operations.findings.examine import examine
from switchyard.operations.findings.finding import EXIT_CODES, worst

EXAMPLES = """examples:
  manage.py switchyard doctor
  manage.py switchyard doctor --json      for a program; exit 0 healthy, 1 warnings, 2 errors"""


class Command(PrintingCommand):
    """Check the yard; exit 0 when healthy, 1 for warnings, 2 for errors."""

    help = "Check configuration, broker, database, pools, queues and scheduler; report defects, causes and remedies."
    requires_system_checks = []  # the command runs them itself and reports every one

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the checks, print the findings, and exit with the code of the worst."""
        started = time.monotonic()
        findings = examine()
        took_ms = int((time.monotonic() - started) * 1000)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(findings, took_ms=took_ms), indent=2))
        else:
            self.stdout.write("\n".join(lines(findings, self._paint, took_ms=took_ms)))
        sys.stdout.flush()
        if code := EXIT_CODES[worst(findings)]:
            sys.exit(code)

    def _paint(self, severity: str, text: str) -> str:
        styles = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "error": self.style.ERROR}
        return styles[severity](text) if severity in styles else text
