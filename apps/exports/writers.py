"""Writers of CSV and XLSX: row by row, in constant memory.

Numbers and dates keep their type; ``safe_text`` escapes text in both formats, because XLSX files get saved as CSV.
"""

from __future__ import annotations

import csv
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from apps.exports.datasets import Cell, Table
from switchyard.console.export import safe_text

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

WriteRow = Callable[[Sequence[Cell]], None]
CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
# Its heading included; another sheet starts when one is full.
SHEET_ROWS = 1_048_576
_NUMBER_FORMATS = {"money": "#,##0.00", "date": "yyyy-mm-dd", "moment": "yyyy-mm-dd hh:mm:ss", "integer": "0"}
# Excel miscounts days before this one.
_FIRST_DAY = datetime.date(1900, 3, 1)


@contextmanager
def open_writer(file_format: str, path: Path, table: Table) -> Iterator[WriteRow]:
    """Open a file, ``csv`` or ``xlsx``, and yield a function that writes one row.

    The file is complete when the block ends without an error.
    """
    with _csv(path, table) if file_format == "csv" else _xlsx(path, table) as write:
        yield write
    with path.open("rb") as written:
        os.fsync(written.fileno())


@contextmanager
def _csv(path: Path, table: Table) -> Iterator[WriteRow]:
    # Text is quoted and numbers are not, which distinguishes the text 007 from the number 7.
    # RFC 4180, UTF-8 without a byte order mark.
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
        writer.writerow([safe_text(column.title) for column in table.columns])
        yield lambda cells: writer.writerow([_plain(cell) for cell in cells])


def _plain(cell: Cell) -> str | int | Decimal:
    match cell:
        case None:
            return ""
        case datetime.datetime():
            return _utc(cell).isoformat(sep=" ", timespec="seconds")
        case datetime.date():
            return cell.isoformat()
        case str():
            return safe_text(cell)
    return cell


@contextmanager
def _xlsx(path: Path, table: Table) -> Iterator[WriteRow]:
    import xlsxwriter  # imported here: only a process that writes a workbook spends the memory

    # constant_memory flushes each row when the next one begins; its temporary files stay in our folder.
    options = {"constant_memory": True, "tmpdir": str(path.parent), "default_date_format": "yyyy-mm-dd"}
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"title": table.name, "company": "Switchyard"})
        head = book.add_format({"bold": True, "font_color": "#FFFFFF", "bg_color": "#1D5FA6", "valign": "vcenter"})
        known = (_NUMBER_FORMATS.get(column.kind) for column in table.columns)
        formats = [book.add_format({"num_format": one, "align": "right"} if one else {}) for one in known]
        sheet, row = _new_sheet(book, table, head), 1

        def write(cells: Sequence[Cell]) -> None:
            nonlocal sheet, row
            if row == SHEET_ROWS:
                sheet, row = _new_sheet(book, table, head), 1
            for position, (cell, column_format) in enumerate(zip(cells, formats, strict=True)):
                _write_cell(sheet, row, position, cell, column_format)
            row += 1

        yield write


def _new_sheet(book: Workbook, table: Table, head: Format) -> Worksheet:
    """Begin the first sheet of a workbook, or another one behind a full one."""
    number = len(book.worksheets()) + 1
    sheet = book.add_worksheet(table.name if number == 1 else f"{table.name} {number}")
    sheet.freeze_panes(1, 0)
    sheet.set_row(0, 22)
    for position, column in enumerate(table.columns):
        sheet.set_column(position, position, column.width)
        sheet.write_string(0, position, safe_text(column.title), head)
    return sheet


def _write_cell(sheet: Worksheet, row: int, position: int, cell: Cell, column_format: Format) -> None:
    match cell:
        case None | "":
            return
        case datetime.datetime() if _utc(cell).date() >= _FIRST_DAY:
            sheet.write_datetime(row, position, _utc(cell), column_format)
        case datetime.date() if not isinstance(cell, datetime.datetime) and cell >= _FIRST_DAY:
            sheet.write_datetime(row, position, cell, column_format)
        case Decimal() | int():
            sheet.write_number(row, position, float(cell), column_format)
        case _:
            # Never write(): it turns text into formulas and links.
            sheet.write_string(row, position, str(_plain(cell)), column_format)


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)
