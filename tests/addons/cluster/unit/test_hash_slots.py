"""Keys of commands, slots of keys, and addresses of clusters."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AskError, MovedError

from switchyard.addons.cluster.client import split_cluster_url
from switchyard.addons.cluster.hash_slots import SLOTS, HashSlots, key_of, slot_of
from switchyard.addons.cluster.servers import PARTS, marks_of_family, marks_of_part
from switchyard.broker.errors import UnusableAddress
from switchyard.broker.keys import Keys


@pytest.mark.parametrize(
    ("words", "key"),
    [
        *((("HGET", "k", "f"), "k"), (("EVALSHA", "sha", 2, "k", "l", "arg"), "k")),
        *((("EVAL", "return 1", 1, "k"), "k"), (("XINFO", "STREAM", "k"), "k"), (("MEMORY", "USAGE", "k"), "k")),
        *((("TIME",), None), (("CONFIG", "GET", "save"), None), (("CONFIG GET", "save"), None)),
        (("SCAN", b"0"), None),
    ],
)
def test_the_key_of_a_command_is_found(words: tuple[Any, ...], key: str | None) -> None:
    assert key_of(words) == key


def test_keys_of_one_tag_share_a_slot() -> None:
    assert slot_of("switchyard:{mail}:bodies") == slot_of(b"switchyard:{mail}:mail.bell") != slot_of("{sms}")


def test_a_cluster_is_addressed_by_some_of_its_nodes() -> None:
    first, seeds = split_cluster_url("rediss+cluster://me:s%40t@a:1,b,[::1]:3/0?ssl_ca_certs=x")

    assert first == "rediss://me:s%40t@a:1?ssl_ca_certs=x"
    assert seeds == [("a", 1), ("b", 6379), ("::1", 3)]


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("redis+cluster://a:1,:2", "a node without a name"),
        ("redis+cluster://a:x", "a node whose port"),
        ("redis+cluster://a:1/3", "database 3"),
    ],
)
def test_an_address_that_cannot_be_used_says_why(url: str, fact: str) -> None:
    with pytest.raises(UnusableAddress, match=fact):
        split_cluster_url(url)


class Told(HashSlots):
    """A map that was read."""

    def __init__(self) -> None:
        super().__init__([], lambda address, answer_s: None)
        half = SLOTS // 2
        self._keep([[0, half - 1, [b"", 1, b"id"]], [half, SLOTS - 1, [b"b", 2], [b"c", 3]]], ("asked", 9))


def test_the_map_names_the_master_of_each_slot() -> None:
    slots = Told()

    assert slots.masters() == [("asked", 1), ("b", 2)]
    assert slots.master_of("foo") == ("b", 2)  # slot 12182
    assert slots.master_of(None) == ("asked", 1)


def test_a_moved_slot_is_learned_and_an_asked_one_is_not() -> None:
    slots = Told()

    assert slots.redirected(AskError("12182 d:4"), ("b", 2)) == ("d", 4)
    assert slots.master_of("foo") == ("b", 2)
    assert slots.redirected(MovedError("12182 :4"), ("b", 2)) is None
    assert slots.master_of("foo") == ("b", 4)


def test_any_512_slots_in_a_row_have_a_marker() -> None:
    marks = [marks_of_part(Keys(), tag) for tag in PARTS]

    assert [slot_of(marker) for marker, _ in marks] == list(range(0, SLOTS, 512))
    assert all(slot_of(marker) == slot_of(missed) for marker, missed in marks)


def test_a_familys_marker_moves_with_the_family() -> None:
    keys = Keys(slot_groups=(("mail", "first"),))

    assert {slot_of(name) for name in marks_of_family(keys, "mail")} == {slot_of(keys.queue("mail").bodies)}
