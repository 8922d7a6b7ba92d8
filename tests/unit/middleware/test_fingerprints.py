"""Failures with one cause have one fingerprint."""

from __future__ import annotations

from switchyard.middleware.outcomes import fingerprint


def _fail(number: int) -> None:
    raise ValueError(f"order {number}")


def _fail_elsewhere() -> None:
    raise ValueError("order 1")


def _caught(function: object, *args: object) -> BaseException:
    try:
        function(*args)  # type: ignore[operator]
    except ValueError as error:
        return error
    raise AssertionError("did not fail")


def test_numbers_in_the_message_do_not_matter() -> None:
    assert fingerprint("a", _caught(_fail, 1)) == fingerprint("a", _caught(_fail, 2))


def test_actor_exception_and_place_matter() -> None:
    base = fingerprint("a", _caught(_fail, 1))

    assert base != fingerprint("b", _caught(_fail, 1))
    assert base != fingerprint("a", _caught(_fail_elsewhere))
    assert base != fingerprint("a", KeyError("order"))
    assert len(base) == 16
