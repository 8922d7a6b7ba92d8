"""Consoles that print lines as they are: no markup, nothing coloured by guess, nothing wrapped."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

FILE_WIDTH = 140


def line_console(stream: TextIO) -> Console:
    """Return a console for lines and tables; where the stream is no terminal it is 140 characters wide."""
    width = None if stream.isatty() else FILE_WIDTH
    return Console(file=stream, width=width, soft_wrap=True, markup=False, highlight=False)
