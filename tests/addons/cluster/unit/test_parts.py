"""The markers of a cluster lie 512 hash slots apart, and those of a family in its slot."""

from __future__ import annotations

from switchyard.addons.cluster.hash_slots import SLOTS, slot_of
from switchyard.addons.cluster.keyspaces import PARTS, marks_of_family, marks_of_part
from switchyard.broker.keys import Keys


def test_any_512_slots_in_a_row_have_a_marker() -> None:
    marks = [marks_of_part(Keys(), tag) for tag in PARTS]

    assert [slot_of(marker) for marker, _ in marks] == list(range(0, SLOTS, 512))
    assert all(slot_of(marker) == slot_of(missed) for marker, missed in marks)


def test_a_familys_marker_moves_with_the_family() -> None:
    keys = Keys(slot_groups=(("mail", "first"),))

    assert {slot_of(name) for name in marks_of_family(keys, "mail")} == {slot_of(keys.queue("mail").bodies)}
