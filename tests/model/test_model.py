"""Notes of crashes, as the model writes and reads them: messages move to another queue family with theirs."""

from __future__ import annotations

import pytest

from tests.model.model import Crashes


@pytest.mark.parametrize(
    "crashes",
    [
        Crashes(5, cause="alone"),
        Crashes(5, (5, 9), "killed by SIGSEGV"),
        Crashes(5, (5,), "alone", ()),
        Crashes(7, (), "alone", ((8, "host-a"), (9, "host-b"))),
    ],
)
def test_crashes_are_read_as_they_were_written(crashes: Crashes) -> None:
    assert Crashes.of_note(str(crashes)) == crashes
