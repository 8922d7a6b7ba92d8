"""The markers of a cluster lie 512 hash slots apart."""

from __future__ import annotations

from switchyard.addons.cluster.hash_slots import SLOTS, slot_of
from switchyard.addons.cluster.parts import PARTS
from switchyard.broker.keys.keys import Keys


def test_any_512_slots_in_a_row_have_a_marker() -> None:
    keys = Keys()

    assert [slot_of(keys.part_id(tag)) for tag in PARTS] == list(range(0, SLOTS, 512))
    assert all(slot_of(keys.part_id(tag)) == slot_of(keys.part_ids_missed(tag)) for tag in PARTS)
