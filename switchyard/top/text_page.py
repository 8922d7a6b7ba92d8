"""Pages of the terminal as data: sections of rows that open other pages, or of lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPlace:
    """Subject of a page: one of the room's lists by its letter, a queue, a worker, or the output of a command.

    Args:
        kind: ``o``, ``q``, ``a``, ``w``, ``j``, ``s``, ``d``, ``l``, ``group`` (of dead letters), ``found`` or
            ``command``.
        of: What it is about: words of a command, a fingerprint, a text to find.
        cursor: Where the page of a list begins.
    """

    kind: str
    of: tuple[str, ...] = ()
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column of a section.

    Args:
        from_width: Width of the terminal from which it is shown.
        is_id: Its cells are ids: of a narrow terminal's only the first characters are shown.
    """

    title: str
    right: bool = False
    from_width: int = 0
    is_id: bool = False


@dataclass(frozen=True, slots=True)
class TextCell:
    """A cell with the level that colours it."""

    text: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of a section; ``opens`` is the page that Enter leads to."""

    cells: tuple[TextCell | str, ...]
    opens: TextPlace | None = None


@dataclass(frozen=True, slots=True)
class TextSection:
    """A part of a page: a table, or lines below a title.

    Args:
        note: Words beside the title.
        empty: Sentence for a section without rows and lines.
    """

    title: str = ""
    note: str = ""
    columns: tuple[TextColumn, ...] = ()
    rows: tuple[TextRow, ...] = ()
    lines: tuple[str, ...] = ()
    empty: str = ""


@dataclass(frozen=True, slots=True)
class TextPage:
    """A page.

    Args:
        command: The command that shows the same, or "".
        older: The next page of a list, or ``None`` at its end.
    """

    title: str
    sections: tuple[TextSection, ...]
    command: str = ""
    older: TextPlace | None = None

    @property
    def rows(self) -> tuple[TextRow, ...]:
        """The rows of all sections, in their order."""
        return tuple(row for section in self.sections for row in section.rows)
