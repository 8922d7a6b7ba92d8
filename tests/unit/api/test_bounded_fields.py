"""Headers that Python reads slowly, or cannot read, are refused before Django sees them."""

from __future__ import annotations

import pytest

from switchyard.api.heads.bounded_fields import LONGEST_COOKIES, refuse_large_cookies, refuse_unreadable_type
from switchyard.api.problems import Problem

FORM = b"application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "given",
    [
        [],
        [b""],
        [b"application/json"],
        [b"application/json; charset=utf-8"],
        [b'Application/JSON;Charset="UTF-8"'],
        [FORM + b"; charset=ISO-8859-1"],
        [FORM + b"; charset=shift_jis"],
        [FORM + b"; charset=nonsense"],
        [FORM + b"; charset=\xff"],
        [b"multipart/form-data; boundary=" + b"-" * 70],
        [b'multipart/form-data; boundary="a;b"'],
        [b"\xff; \xff=\xff"],
    ],
)
def test_what_clients_write_is_accepted(given: list[bytes]) -> None:
    refuse_unreadable_type(given)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        # Python's reader takes 0.7 s for a quoted value of 32 KiB of semicolons.
        ([b'a; x="' + b";" * 31_000], 400),
        ([b"a;x*=foo''%41"], 400),
        ([b"a;x*=idna''%ff"], 400),
        ([b"a;x*" + b"9" * 400 + b"*=b"], 400),
        ([b"a;charset*=utf-8''%00"], 400),
        ([b"application/json", b"multipart/form-data; boundary=x"], 400),
        *(
            ([FORM + b"; charset=" + charset], 415)
            for charset in (b"rot13", b"hex", b"zlib", b"utf-7", b"unicode_escape", b"idna", b"punycode", b"undefined")
        ),
        ([FORM + b"; charset=\x00"], 415),
    ],
)
def test_what_cannot_be_read_is_refused(given: list[bytes], status: int) -> None:
    with pytest.raises(Problem) as caught:
        refuse_unreadable_type(given)

    assert caught.value.status == status


def test_cookies_are_bounded_together() -> None:
    refuse_large_cookies([])
    refuse_large_cookies([b"x" * LONGEST_COOKIES])

    with pytest.raises(Problem) as caught:
        refuse_large_cookies([b"x" * LONGEST_COOKIES, b"x"])

    assert caught.value.status == 431
    assert caught.value.detail == "the cookies have 8193 bytes, 8192 are the most; delete some"
