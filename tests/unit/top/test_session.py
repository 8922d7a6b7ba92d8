"""Keys of the terminal: the pages' keys, and none that changes anything."""

from __future__ import annotations

import pytest

from switchyard.frame.navigation import ROOM
from switchyard.top.session import KEYS, TopSession, key_page
from switchyard.top.text_page import TextColumn, TextPage, TextPlace, TextRow, TextSection

JOB = TextPlace("command", ("jobs", "show", "1"))


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(clock: Clock) -> TopSession:
    return TopSession(clock)


def page_of(*opens: TextPlace | None, older: TextPlace | None = None) -> TextPage:
    rows = tuple(TextRow((str(number),), place) for number, place in enumerate(opens))
    return TextPage("Page", (TextSection(columns=(TextColumn("name"),), rows=rows),), older=older)


def press(session: TopSession, page: TextPage | None, *keys: str) -> None:
    for key in keys:
        session.press(key, page)


def test_g_and_a_letter_lead_to_each_page_of_the_room(session: TopSession) -> None:
    for room_page in ROOM:
        if room_page.key:
            press(session, None, "g", room_page.key)

            assert session.place == TextPlace(room_page.key)


def test_the_list_of_keys_names_every_page_of_the_room() -> None:
    lines = key_page().sections[0].lines

    for room_page in ROOM:
        if room_page.key:
            assert any(line.startswith(f"g {room_page.key} ") and room_page.title in line for line in lines)
    assert len(KEYS) == len({key for key, _ in KEYS})


def test_a_letter_long_after_g_is_a_key_of_its_own(session: TopSession, clock: Clock) -> None:
    press(session, None, "g")
    clock.now_s += 5
    press(session, None, "q")

    assert session.left


def test_an_unknown_letter_after_g_leads_nowhere_and_says_so(session: TopSession) -> None:
    press(session, None, "g", "z")

    assert session.place == TextPlace("o") and "g z leads nowhere" in session.message


def test_enter_opens_the_chosen_row_and_escape_leads_back_and_out(session: TopSession) -> None:
    press(session, page_of(None, JOB), "j", "j", "Enter")

    assert session.place == JOB
    press(session, None, "Escape")
    assert session.place == TextPlace("o") and not session.left
    press(session, None, "Escape")
    assert session.left


def test_enter_without_a_row_says_how_to_choose_one(session: TopSession) -> None:
    press(session, page_of(JOB), "Enter")

    assert session.place == TextPlace("o") and session.message == "No row to open: j and k go to one."


def test_rows_end_at_the_first_and_the_last(session: TopSession) -> None:
    page = page_of(JOB, None, None)

    press(session, page, "j", "k", "k")
    assert session.row_of(page) == 0
    press(session, page, *"jjjjj")
    assert session.row_of(page) == 2


def test_the_chosen_row_is_followed_where_it_moves(session: TopSession) -> None:
    other = TextPlace("command", ("jobs", "show", "2"))
    press(session, page_of(JOB, other), "j")

    assert session.row_of(page_of(other, other, JOB)) == 2
    assert session.row_of(page_of(other)) == 0, "it is gone: the row nearest to its place"
    assert session.row_of(page_of()) is None


def test_slash_takes_letters_until_enter_and_no_key_acts_meanwhile(session: TopSession) -> None:
    press(session, None, "/", *"qax", "Backspace", "Enter")

    assert session.place == TextPlace("found", ("qa",)) and session.asked is None and not session.left
    press(session, None, "/", "q", "Escape")
    assert session.asked is None and not session.left and session.place.kind == "found"


def test_nothing_is_searched_for_an_empty_text(session: TopSession) -> None:
    press(session, None, "/", " ", "Enter")

    assert session.place == TextPlace("o")


def test_n_and_p_turn_the_pages_of_a_list_and_escape_leaves_it_at_once(session: TopSession) -> None:
    press(session, None, "g", "j")
    second, third = TextPlace("j", (), "2"), TextPlace("j", (), "3")
    press(session, page_of(older=second), "n")
    press(session, page_of(older=third), "n")

    assert session.place == third
    press(session, page_of(), "n")
    assert session.message == "Nothing is older."
    press(session, page_of(), "p", "p")
    assert session.place == TextPlace("j")
    press(session, page_of(), "p")
    assert session.message == "Nothing is newer."
    press(session, page_of(older=second), "n", "Escape")
    assert session.place == TextPlace("o")


def test_the_dot_pauses_and_resumes(session: TopSession, clock: Clock) -> None:
    press(session, None, ".")
    assert session.paused_at_s == clock.now_s
    press(session, None, ".")
    assert session.paused_at_s is None


def test_a_question_mark_shows_the_keys_until_the_next_key(session: TopSession) -> None:
    press(session, None, "?")
    assert session.keys_shown
    press(session, None, "Escape")
    assert not session.keys_shown and not session.left


def test_x_says_that_no_key_changes_anything(session: TopSession) -> None:
    press(session, page_of(JOB), "j", "x")

    assert "No key discards, cancels or changes anything" in session.message


def test_lines_scroll_where_a_page_has_no_rows(session: TopSession) -> None:
    press(session, page_of(), "j", "j", "k")
    assert session.chosen[-1].line == 1
    press(session, page_of(), "PageDown")
    assert session.chosen[-1].line == 21
    press(session, page_of(), "PageUp", "PageUp")
    assert session.chosen[-1].line == 0
