"""Base class of the commands that print and end."""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, SystemCheckError

from switchyard.console.command_errors import WRONG_ARGUMENTS
from switchyard.middleware.logs import printable_lines

# As a shell reports a program that SIGPIPE ended.
READER_LEFT = 141


class PrintingCommand(BaseCommand):
    """Command that ends quietly, with exit code ``READER_LEFT``, when the reader of its output has left.

    ``manage.py switchyard jobs show ID | head -3`` is such a case. Other commands print a traceback of
    ``BrokenPipeError`` then. The control characters of its errors are escaped: names in them may be those of a message,
    and drive a terminal. An argument whose bytes are no UTF-8 is refused with exit code 2: neither a database nor a
    terminal takes it.
    """

    def print_json(self, value: object) -> None:
        """Print a value as JSON."""
        self.stdout.write(json.dumps(value, indent=2))

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        except SystemCheckError:  # of Django, in colours
            raise
        except CommandError as error:
            error.args = tuple(printable_lines(part) if isinstance(part, str) else part for part in error.args)
            raise

    def answer(self, text: str, value: Any, *, as_json: bool, indent: int | None = None) -> None:
        """Print a text, or in its place a value as JSON."""
        self.stdout.write(json.dumps(value, indent=indent) if as_json else text)

    def run_from_argv(self, argv: list[str]) -> None:
        if unusable := next((text for text in argv[1:] if _is_no_text(text)), ""):
            sys.stderr.write(f"{argv[1]}: the argument {unusable!a} is no UTF-8 text; write it in UTF-8\n")
            sys.exit(WRONG_ARGUMENTS)
        code: Any = None
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
        if code is not None:
            sys.exit(code)


def _is_no_text(argument: str) -> bool:
    """Return whether an argument has bytes that Python could not decode, and holds as halves of surrogate pairs."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return True
    return False


def _has_lost_its_reader(stream: Any) -> bool:
    """Return whether a stream is a pipe or a socket that nobody reads."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # none, or one in memory
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
