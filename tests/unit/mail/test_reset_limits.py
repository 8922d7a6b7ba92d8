"""All spellings of an address share one limit."""

from __future__ import annotations

import pytest

from apps.mail.allowances import mailbox_of

ADA = (
    *("ada@example.com", "ADA@Example.COM", "ada+1@example.com", "Ada+a+b@example.com", "ada@example.com."),
    *("\uff41da@example.com", '"ada"@example.com', '"\\ada"@example.com', '"a\\d\\A+x"@example.com'),
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((spelling, "ada@example.com") for spelling in ADA),
        ("a.d.a@gmail.com", "ada@googlemail.com"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("jos\u00e9@example.com", "jose\u0301@example.com"),
    ],
)
def test_spellings_of_one_mailbox_are_one(one: str, other: str) -> None:
    assert mailbox_of(one) == mailbox_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.da@example.com", "ada@example.com"),
        ("ada@example.com", "ada@example.org"),
        ("+a@example.com", "+b@example.com"),
    ],
)
def test_two_mailboxes_are_two(one: str, other: str) -> None:
    assert mailbox_of(one) != mailbox_of(other)
