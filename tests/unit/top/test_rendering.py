"""Pages as lines: one line a row, columns by width, and nothing that moves a cursor."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from switchyard.top.rendering import Line, body
from switchyard.top.text_page import TextCell, TextColumn, TextPage, TextRow, TextSection

COLUMNS = (TextColumn("queue"), TextColumn("waiting", right=True), TextColumn("detail", from_width=100))


def page_of(*rows: tuple[str, str, str], lines: tuple[str, ...] = ()) -> TextPage:
    section = TextSection(
        "The yard", "as it is", COLUMNS, tuple(TextRow(row) for row in rows), lines, "Nothing is here."
    )
    return TextPage("Page", (section, section))


def text_of(lines: list[Line]) -> list[str]:
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def test_each_row_is_one_line_and_the_lines_of_rows_are_known() -> None:
    lines, row_lines = body(page_of(("urgent", "3", "late"), ("default", "1,234", "")), 120)
    shown = text_of(lines)

    assert [shown[at].split()[0] for at in row_lines] == ["urgent", "default"] * 2
    assert shown[0] == "The yard  as it is" and shown[1].split() == ["queue", "waiting", "detail"]


def test_a_narrow_terminal_leaves_out_columns() -> None:
    lines, _ = body(page_of(("urgent", "3", "late")), 80)

    assert "detail" not in text_of(lines)[1] and "late" not in text_of(lines)[2]


@pytest.mark.parametrize(("width", "shown"), [(139, "0f8fad5b"), (140, "0f8fad5b-d9cb-469f-a165-70867728950e")])
def test_a_wide_terminal_shows_ids_as_commands_take_them(width: int, shown: str) -> None:
    row = TextRow(("0f8fad5b-d9cb-469f-a165-70867728950e", "of one"))
    columns = (TextColumn("job", is_id=True), TextColumn("name"))

    lines, row_lines = body(TextPage("Jobs", (TextSection(columns=columns, rows=(row,)),)), width)

    assert text_of(lines)[row_lines[0]].split()[0] == shown


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    page = page_of(("q" * 300, "3", "d" * 300), ("短い" * 60, "3", ""), lines=("word " * 200, "w" * 500))

    lines, _ = body(page, width)

    assert max(cell_len(line) for line in text_of(lines)) <= width


def test_a_number_is_not_cut_before_a_name() -> None:
    lines, row_lines = body(page_of(("q" * 300, "1,234,567", "")), 40)

    assert text_of(lines)[row_lines[0]].endswith("1,234,567")


def test_names_from_outside_move_no_cursor_and_have_no_markup() -> None:
    lines, row_lines = body(page_of(("\x1b[2J[red]a\nb", "\x07", "")), 120)

    row = text_of(lines)[row_lines[0]]
    assert row.isprintable() and "[red]a b" in row


def test_the_chosen_row_is_marked_without_colour() -> None:
    lines, row_lines = body(page_of(("urgent", "3", ""), ("default", "4", "")), 80, chosen=3)

    reversed_lines = [at for at, line in enumerate(lines) if any(part.style and part.style.reverse for part in line)]
    assert reversed_lines == [row_lines[3]]


def test_an_empty_section_says_what_would_fill_it() -> None:
    assert "Nothing is here." in text_of(body(page_of(), 80)[0])


def test_a_level_has_its_word_and_its_colour() -> None:
    section = TextSection("", "", COLUMNS, (TextRow((TextCell("urgent", "bad"), "1", "")),))

    lines, row_lines = body(TextPage("Page", (section,)), 80)

    [style] = [part.style for part in lines[row_lines[0]] if part.text.startswith("urgent")]
    assert style is not None and style.color is not None and style.color.name == "red"
