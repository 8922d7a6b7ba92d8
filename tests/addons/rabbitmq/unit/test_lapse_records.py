"""The note of a lapse suspect: what each end of a delivery makes of it, and how it is stored."""

from __future__ import annotations

import pytest

from switchyard.addons.rabbitmq.redeliveries import KEPT_MS, LapseRecord, decode

NOW = 10 * KEPT_MS


def test_a_first_lapse_marks_and_counts_nothing() -> None:
    assert LapseRecord(NOW).after(lapsed=True, now_ms=NOW).lapses == ()


def test_a_lapse_of_a_lone_run_is_counted_once_with_its_host() -> None:
    note = LapseRecord(NOW - 9, f"{NOW - 5}@box", (f"{NOW - 8}@other",))

    counted = note.after(lapsed=True, now_ms=NOW)

    assert counted == LapseRecord(NOW, "", (f"{NOW - 8}@other", f"{NOW}@box"))
    assert counted.after(lapsed=True, now_ms=NOW + 1).lapses == counted.lapses


def test_a_lone_run_whose_end_is_known_is_not_counted() -> None:
    assert LapseRecord(NOW - 9, f"{NOW - 5}@box").after(lapsed=False, now_ms=NOW) == LapseRecord(NOW)


def test_a_lapse_counts_for_72_hours() -> None:
    note = LapseRecord(NOW, "", (f"{NOW - KEPT_MS - 1}@box", f"{NOW - KEPT_MS}@box"))

    assert note.after(lapsed=True, now_ms=NOW).lapses == (f"{NOW - KEPT_MS}@box",)


def test_a_delivery_that_changes_nothing_leaves_the_note_as_it_is() -> None:
    note = LapseRecord(NOW - 9, "", (f"{NOW - 8}@box",))

    assert note.after(lapsed=False, now_ms=NOW) is note


@pytest.mark.parametrize(
    "note",
    [LapseRecord(1), LapseRecord(2, "1@box"), LapseRecord(3, "", ("1@a", "2@b-c.d")), LapseRecord(4, "3@x", ("1@a",))],
)
def test_a_stored_note_is_read_as_it_was(note: LapseRecord) -> None:
    assert decode(note.encode().encode()) == note


@pytest.mark.parametrize("stored", [None, b"", b"x", b"1 -", b"1 - 2", b"1 box +", b"1 - + +", b"\xff - +"])
def test_a_note_that_cannot_be_read_counts_as_none(stored: bytes | None) -> None:
    assert decode(stored) is None
