from __future__ import annotations

from apps.platform.dead_letters.queries import hex_dump


def test_bytes_are_shown_by_offset_with_printable_text_only() -> None:
    lines = hex_dump(b"<b>\x1b[31m\x00\xff" + bytes(10)).splitlines()

    assert lines[0] == "000000  3c 62 3e 1b 5b 33 31 6d 00 ff 00 00 00 00 00 00  <b>.[31m........"
    assert lines[1].startswith("000010  00 00 00 00")


def test_no_bytes_are_no_lines() -> None:
    assert hex_dump(b"") == ""
