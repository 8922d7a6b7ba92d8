"""Rows read back from a CSV or XLSX file equal the database's, keep their types, and hold no formulas."""

import csv
import datetime
from decimal import Decimal

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.exports.datasets import Column, Table
from apps.exports.writers import open_writer
from apps.shop.models import Customer
from switchyard.console.export import TRIGGERS, safe_text

MOMENT = datetime.datetime(2026, 10, 31, 23, 59, 58, 123456, tzinfo=datetime.UTC)
TABLE = Table(
    "Things",
    (
        *(Column("Name", "text", 20, lambda row: row[0]), Column("Amount", "money", 12, lambda row: row[1])),
        *(Column("Count", "integer", 8, lambda row: row[2]), Column("Day", "date", 12, lambda row: row[3])),
        Column("At", "moment", 20, lambda row: row[4]),
    ),
    Customer.objects.none(),
)
ROW = ("Ada", Decimal("-1234.50"), 7, datetime.date(2026, 10, 31), MOMENT)
# Characters that XML and databases can hold: no NUL, no surrogates, no non-characters.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], include_characters="\t\n"), max_size=60)
TEXTS = st.lists(
    st.builds("{}{}".format, st.sampled_from(["", *sorted(TRIGGERS - {"\r"}), " =", "\u200b+"]), TEXT), max_size=8
)


def write(path, rows, file_format):
    with open_writer(file_format, path, TABLE) as put:
        for row in rows:
            put(row)
    return path


def read_xlsx(path):
    book = openpyxl.load_workbook(path)
    return book, [[cell.value for cell in row] for row in book.worksheets[0].iter_rows()]


def test_csv_leaves_numbers_unquoted_and_quotes_text(tmp_path):
    raw = write(tmp_path / "a.csv", [ROW, ('O"Neill, Ada', Decimal("0.10"), 0, None, None)], "csv").read_bytes()

    assert raw.decode() == (
        '"Name","Amount","Count","Day","At"\r\n'
        '"Ada",-1234.50,7,"2026-10-31","2026-10-31 23:59:58"\r\n'
        '"O""Neill, Ada",0.10,0,"",""\r\n'
    )


def test_xlsx_keeps_numbers_and_dates_typed_but_a_day_that_excel_cannot_hold_and_styles_its_heading(tmp_path):
    book, rows = read_xlsx(write(tmp_path / "a.xlsx", [ROW], "xlsx"))

    sheet = book.worksheets[0]
    assert rows[0] == ["Name", "Amount", "Count", "Day", "At"]
    assert rows[1][:4] == ["Ada", -1234.5, 7, datetime.datetime(2026, 10, 31)]  # noqa: DTZ001
    assert rows[1][4].replace(microsecond=0) == datetime.datetime(2026, 10, 31, 23, 59, 58)  # noqa: DTZ001
    assert sheet["A1"].font.bold
    assert sheet["B2"].number_format == "#,##0.00"
    assert (sheet.freeze_panes, sheet.column_dimensions["A"].width) == ("A2", pytest.approx(20, abs=1))

    _, rows = read_xlsx(write(tmp_path / "a.xlsx", [("Ada", None, None, datetime.date(1899, 5, 1), None)], "xlsx"))

    assert rows[1][3] == "1899-05-01"


def test_a_full_sheet_is_followed_by_another_with_its_own_heading(tmp_path, monkeypatch):
    monkeypatch.setattr("apps.exports.writers.SHEET_ROWS", 3)

    book, _ = read_xlsx(write(tmp_path / "a.xlsx", [ROW] * 5, "xlsx"))

    assert book.sheetnames == ["Things", "Things 2", "Things 3"]
    assert [sheet.max_row for sheet in book.worksheets] == [3, 3, 2]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_no_csv_cell_is_a_formula_and_every_text_comes_back(tmp_path, texts):
    path = write(tmp_path / "a.csv", [(text, Decimal("1.00"), 1, None, None) for text in texts], "csv")

    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    assert not [cell for row in rows for cell in row if cell[:1] in TRIGGERS and cell]
    assert [row[0] for row in rows] == [safe_text(text) for text in texts]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_no_xlsx_cell_is_a_formula_and_every_text_comes_back(tmp_path, texts):
    book, rows = read_xlsx(
        write(tmp_path / "a.xlsx", [(text, Decimal("1.00"), 1, None, None) for text in texts], "xlsx")
    )

    cells = [cell for row in book.worksheets[0].iter_rows(min_row=2) for cell in row if cell.value is not None]
    assert {cell.data_type for cell in cells} <= {"s", "n"}
    assert not [cell.value for cell in cells if cell.data_type == "s" and cell.value[:1] in TRIGGERS]
    assert [row[0] or "" for row in rows[1:]] == [safe_text(text) for text in texts]


@pytest.mark.parametrize("file_format", ["csv", "xlsx"])
def test_a_failure_leaves_no_more_than_the_folder_it_was_given(tmp_path, file_format):
    with pytest.raises(ZeroDivisionError), open_writer(file_format, tmp_path / "a", TABLE) as put:
        put(ROW)
        raise ZeroDivisionError

    assert {path.name for path in tmp_path.iterdir()} <= {"a"}
