"""Management commands: their base class, arguments, errors and exit codes."""

import json
import math
import os
import re
import select
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from io import TextIOWrapper
from itertools import pairwise
from shutil import get_terminal_size
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter, SystemCheckError
from django.db import DatabaseError, InterfaceError, OperationalError
from dramatiq.middleware import MiddlewareError

from switchyard.broker.errors import ActRefused, ArgumentsRefused, BrokerError, SwitchyardError
from switchyard.conf import in_words_of_project
from switchyard.files.addresses import is_full
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption
from switchyard.middleware.logs import printable, printable_lines

EX_CONFIG = 78


def refuse(*facts: str) -> NoReturn:
    """Print why the process does not start and exit 78 (EX_CONFIG)."""
    for fact in facts:
        sys.stderr.write(f"switchyard: refused to start: {fact}\n")
    sys.stderr.flush()
    raise SystemExit(EX_CONFIG)


WRONG_ARGUMENTS = 2
# Errors of a call that is wrong in itself, whatever the state of its subject.
WRONG = (ValueError, ArgumentsRefused, ArgumentMismatch, InvalidOption)
# Of the columns of a table that go on below.
INDENT = "    "
# SQLSTATE of an undefined table and of an undefined column.
UNDEFINED = ("42P01", "42703")
DATABASE_REMEDY = "check DATABASE_URL and SWITCHYARD_STATE_DIR, and that manage.py migrate was run"


def wrong(text: str) -> CommandError:
    """Return the error of a call whose arguments are unusable: its exit code is 2."""
    return CommandError(text, returncode=WRONG_ARGUMENTS)


def database_trouble(error: Exception) -> str:
    """Return an error of a database that cannot be used now in a line, with the next step; "" for any other error."""
    fact = str(error).partition("\n")[0]
    if is_full(error):
        return f"the disk is full: {fact}; free space, nothing has to be restarted"
    if fact.startswith(("no such table", "no such column")) or getattr(error.__cause__, "sqlstate", "") in UNDEFINED:
        return f"the database is not migrated: {fact}; run manage.py migrate"
    if isinstance(error, (OperationalError, InterfaceError)):
        return f"the database does not answer: {fact}; {in_words_of_project(DATABASE_REMEDY)}"
    return ""


@contextmanager
def as_command_error(subject: str) -> Iterator[None]:
    """Turn a failure of database, broker, yard or middleware into a one-line ``CommandError`` without a traceback.

    The line begins with the subject of the command, such as ``job <id>``, unless the error names its own.
    """
    try:
        yield
    except DatabaseError as error:
        raise CommandError(f"{subject}: {database_trouble(error) or error}") from error
    except BrokerError as error:
        raise CommandError(in_words_of_project(f"{subject}: {error}")) from error
    except (SwitchyardError, MiddlewareError) as error:
        by_argument = isinstance(error, WRONG) or (isinstance(error, ActRefused) and error.by_argument)
        raise (wrong if by_argument else CommandError)(str(error)) from error


def show_examples(parser: ArgumentParser, examples: str) -> None:
    """Show example calls, one a line, below a command's arguments."""
    parser.epilog, parser.formatter_class = examples, _KeepsLines


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows below their titles, without control characters, "" for none; narrow terminals have columns below."""
    shown = [titles, *([printable(cell or "-") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    room = get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else math.inf
    folds, end = [0], 0
    for column, width in enumerate(widths):
        if end and end + width > room:
            folds, end = [*folds, column], len(INDENT)
        end += width + 2
    parts = list(pairwise([*folds, len(widths)]))
    padded = (list(map(str.ljust, row, widths)) for row in shown)
    lines = (f"{INDENT if first else ''}{'  '.join(row[first:after])}" for row in padded for first, after in parts)
    return "\n".join(map(str.rstrip, lines)) if len(shown) > 1 else ""


def seconds(text: str) -> float:
    """Return the seconds that an argument names, such as ``25``; ``ArgumentTypeError`` for no number from 0 on."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) < math.inf:  # nan is neither
            return number
    raise ArgumentTypeError(f"{text!r} is not a number of seconds; give 0 or more, such as 25")


def number_within(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number in a range."""

    def number(text: str) -> int:
        with suppress(ValueError):
            if least <= int(text) <= most:
                return int(text)
        raise ArgumentTypeError(f"{text!r:.40} is not a number from {least:,} to {most:,}")

    return number


# 0 stands for a free one.
port = number_within(0, 65_535)
# Of a list that is printed in one piece.
LIMIT = number_within(1, 100_000)


def listed_number(command: str, text: str) -> int:
    """Return the number that an argument is; ``ArgumentTypeError`` names the command that prints such numbers."""
    if text.isdecimal():
        return int(text)
    raise ArgumentTypeError(f"{text!r} is not a number; write one that manage.py switchyard {command} prints")


class ActionParser(CommandParser):
    """Parser of one action, such as ``jobs list``: argparse would leave unknown arguments to the command's parser."""

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


# As a shell reports a program that SIGPIPE, or Ctrl-C, ended.
READER_LEFT, INTERRUPTED = 141, 130


class PrintingCommand(BaseCommand):
    """Command that ends quietly at Ctrl-C, and when the reader of its output has left, as ``… | head -3`` does.

    Control characters in its errors are escaped, and those that the output's encoding lacks. An argument whose bytes
    are no UTF-8 is refused. ``examples`` are calls, one a line; ``as_json`` says that it was called with ``--json``.
    """

    examples = ""
    as_json = False

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, self.examples)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def execute(self, *args: Any, **options: Any) -> Any:
        self.as_json = bool(options.get("json"))
        try:
            return super().execute(*args, **options)
        except SystemCheckError:  # of Django, in colours
            raise
        except CommandError as error:
            error.args = tuple(printable_lines(part) if isinstance(part, str) else part for part in error.args)
            raise

    def answer(self, text: str | Iterable[str], value: Any, *, indent: int | None = None) -> None:
        """Print a text, or its lines, of which there may be none; with ``--json`` a value in its place."""
        if self.as_json:
            self.stdout.write(json.dumps(value, indent=indent, default=str))
        elif text := text if isinstance(text, str) else "\n".join(text):
            self.stdout.write(text)

    def run_from_argv(self, argv: list[str]) -> None:
        # Bytes that Python could not decode are there as halves of surrogate pairs.
        if unusable := next((text for text in argv[1:] if re.search("[\ud800-\udfff]", text)), ""):
            sys.stderr.write(f"{argv[1]}: the argument {unusable!a} is not UTF-8 text; write it in UTF-8\n")
            sys.exit(WRONG_ARGUMENTS)
        code: Any = None
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            try:
                super().run_from_argv(argv)
            except SystemExit as ended:
                code = ended.code
            if sys.stdout is not None:  # closed by the shell's >&-
                sys.stdout.flush()
        except BrokenPipeError:
            # The error may be another connection's.
            unread = [stream for stream in (sys.stdout, sys.stderr) if _has_lost_its_reader(stream)]
            if not unread:
                raise
            for stream in unread:  # Python flushes them once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = READER_LEFT
        except KeyboardInterrupt:
            code = INTERRUPTED
        if code is not None:
            sys.exit(code)


class ActsCommand(PrintingCommand):
    """Command of several acts, such as ``jobs list`` and ``jobs run-now``: methods ``_list`` and ``_run_now``.

    Each gets the options of its act, among them ``verb``, its name. ``subject`` begins the line of an error that names
    none; ``without`` is the act that is done without a name, "" where one has to be written.
    """

    subject: str
    without = ""

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        """Add the parser of each act: ``add(name, help=text)``."""
        raise NotImplementedError

    def add_arguments(self, parser: CommandParser) -> None:
        if self.without:
            super().add_arguments(parser)
        show_examples(parser, self.examples)
        acts = parser.add_subparsers(dest="verb", required=not self.without, parser_class=ActionParser)
        self.add_acts(acts.add_parser)
        if self.without:
            acts.metavar = "|".join(acts.choices)
        for each in acts.choices.values():
            each.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error(self.subject):
            self.act(options)

    def act(self, options: dict[str, Any]) -> None:
        getattr(self, f"_{(options['verb'] or self.without).replace('-', '_')}")(options)


def _has_lost_its_reader(stream: Any) -> bool:
    """Return whether a stream is a pipe or a socket that nobody reads."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # none, or one in memory
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
