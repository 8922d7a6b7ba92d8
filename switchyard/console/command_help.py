"""Arguments of management commands: examples, types, and what is said of an option that an action does not have."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from difflib import get_close_matches
from typing import Any

from django.core.management.base import CommandParser, DjangoHelpFormatter


def show_examples(parser: ArgumentParser, examples: str) -> None:
    """Show example calls, one a line, below a command's arguments."""
    parser.epilog = examples
    parser.formatter_class = _KeepsLines


def seconds(text: str) -> float:
    """Return the number of seconds that an argument names, such as ``25``.

    Raises:
        ArgumentTypeError: it is no number, or one below 0, or without end.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:  # nan is neither
        raise ArgumentTypeError(f"{text!r} is no number of seconds; give 0 or more, such as 25")
    return number


class ActionParser(CommandParser):
    """Parser of one action of a command, such as ``jobs list``: ``add_subparsers(parser_class=ActionParser)``.

    argparse leaves unknown arguments of an action to the command's parser, which prints a usage without the action's
    options.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments with the action's usage and the nearest option."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._nearest(unknown[0].partition('=')[0])}")
        return found, unknown

    def _nearest(self, name: str) -> str:
        options = [option for action in self._actions for option in action.option_strings]
        # Misspelt names keep their first letter: --filter is not near --after.
        names = [option[2:] for option in options if option[:3] == name[:3]]
        near = get_close_matches(name[2:], names, n=1) if name.startswith("--") else []
        return f"; did you mean --{near[0]}?" if near else ""


class _KeepsLines(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Django's formatter, which lists a command's own arguments first, with the lines of the examples kept."""
