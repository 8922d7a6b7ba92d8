"""Examples in the help of management commands."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import DjangoHelpFormatter


def show_examples(parser: ArgumentParser, examples: str) -> None:
    """Show example calls, one a line, below a command's arguments."""
    parser.epilog = examples
    parser.formatter_class = _KeepsLines


class _KeepsLines(DjangoHelpFormatter):
    """Django's formatter, which lists a command's own arguments first, without re-wrapping multi-line text."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines())
