"""Every key of a family has the family's hash tag. That a script's keys are given to it: ``test_lua_keys``."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from switchyard.broker.keys import Keys
from switchyard.broker.topology import Queue, Yard


@pytest.mark.parametrize("groups", [(), (("mail", "first"), ("sms", "first"))])
def test_all_keys_of_a_family_are_in_one_hash_slot(groups: tuple[tuple[str, str], ...]) -> None:
    family = Keys(slot_groups=groups).queue("mail")
    names = [*family.all_keys(), family.hold("o"), family.ended_bucket(3), family.kept_result("j")]
    names += [family.job_events("j"), *family.aside("p"), *family.aside_waiting("p", "live")]
    names += [family.aside_due("p", "retry"), family.aside_jobs("p"), family.parked("live")]

    assert len({slot_of(name) for name in names}) == 1


def test_queues_of_one_slot_group_share_a_slot_and_no_key() -> None:
    yard = Yard((queue("mail", "first"), queue("sms", "first"), queue("first"), queue("other")), ())
    keys = yard.keys
    families = [keys.queue(name) for name in ("mail", "sms", "first")]

    assert len({slot_of(family.bodies) for family in families}) == 1
    assert slot_of(keys.queue("other").bodies) == slot_of(Keys().queue("other").bodies)
    assert len({name for family in families for name in family.all_keys()}) == 3 * len(families[0].all_keys())


def slot_of(key: str) -> int:
    """Return the slot of a key's hash tag."""
    return int(key_slot(key.encode()))


def queue(name: str, slot_group: str = "") -> Queue:
    """Return a queue."""
    return Queue(name, objective_ms=None, soft_limit_ms=1_000, hard_limit_ms=2_000, slot_group=slot_group)
