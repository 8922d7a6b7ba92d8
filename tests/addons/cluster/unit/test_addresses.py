"""Addresses of a cluster, keys of commands and slots of keys: what is refused, and what is done with the rest."""

from dataclasses import replace
from types import SimpleNamespace

import dramatiq.worker
import pytest
from redis.exceptions import AskError, MovedError

from switchyard.addons.cluster.hash_slots import SLOTS, HashSlots, key_of, slot_of, split_cluster_url
from switchyard.addons.cluster.servers import PARTS, marks_of_family, marks_of_part
from switchyard.broker.errors import UnusableAddress
from switchyard.broker.health.server import facts_of, judge
from switchyard.broker.keys import Keys
from switchyard.conf import switchyard_settings
from switchyard.operations.findings import examine
from switchyard.operations.findings.finding import Finding
from switchyard.setting_values import InvalidSetting
from switchyard.workers.child import main
from tests.unit.operations.findings.test_examine import ADMIN, CHANGE, COMMAND
from tests.unit.operations.findings.test_examine import installed as installed
from tests.unit.project.test_config import GOOD, load

CLUSTER = "redis+cluster://user:secret@10.0.0.1:6379,10.0.0.2:6379"


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("redis+cluster://user:pass/word@a:1,b:2", "has a node whose port is not a number"),
        ("redis+cluster://127.0.0.1:1,b:2", "b is reached without a password"),
        ("redis+cluster://user:word@a:1,b:2/3", "names database 3"),
        (
            "redis+cluster://user:word@a:1,b:2?ssl_ca_certs=/ca.pem",
            "ssl_ca_certs, which is for TLS; begin the address with rediss+cluster://",
        ),
    ],
)
def test_what_cannot_or_must_not_be_is_refused(value, fact):
    with pytest.raises(InvalidSetting) as refused:
        load({**GOOD, "SWITCHYARD_BROKER_URL": value})

    assert fact in str(refused.value)


def test_options_that_the_client_knows_are_taken():
    url = "rediss+cluster://u:p@a:1,b:2?ssl_check_hostname=no&health_check_interval=10"

    load({**GOOD, "DJANGO_DEBUG": "1", "SWITCHYARD_BROKER_URL": url})


@pytest.mark.parametrize("url", ["redis+cluster://one:6379,two:6379", "REDISS+CLUSTER://one:6379,two:6379"])
def test_consumers_start_again_soon(url, monkeypatch):
    settings = replace(switchyard_settings(), broker_url=url)
    monkeypatch.setattr(main, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 3.0)

    main.restart_soon()

    assert dramatiq.worker.CONSUMER_RESTART_DELAY_SECS == main.FAILOVER_PAUSE_S


def test_a_node_that_is_addressed_as_if_it_were_alone_is_refused():
    facts = facts_of(b"redis_version:7.2.4\r\ncluster_enabled:1\r\n", [])

    assert [(item.code, item.severity) for item in judge(facts, production=False)] == [("cluster", "error")]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("node 10.0.0.2:6380: it blocks", f"valkey-cli -h 10.0.0.2 -p 6380 {ADMIN} {CHANGE}"),
        ("a lock is left", f"valkey-cli -c -h 10.0.0.1 -p 6379 {ADMIN} {CHANGE}"),
    ],
)
def test_a_command_names_its_node(seen, expected, monkeypatch):
    own = SimpleNamespace(broker_url=CLUSTER, server_variable="SWITCHYARD_BROKER_URL")
    monkeypatch.setattr(examine, "switchyard_settings", lambda: own)

    assert examine.copyable(Finding("broker", "stalls", "warning", seen, next=COMMAND)).next == expected


def test_a_command_about_a_cluster_names_no_second_node(monkeypatch):
    url = CLUSTER.replace("redis+", "rediss+", 1) + "?ssl_ca_certs=/ca.pem"
    own = SimpleNamespace(broker_url=url, server_variable="SWITCHYARD_BROKER_URL")
    monkeypatch.setattr(examine, "switchyard_settings", lambda: own)
    step = "Wait while a reshard runs; after one that was interrupted, run `valkey-cli --cluster fix 10.0.0.1:6379`."

    found = examine.copyable(Finding("broker", "half_moved", "error", "hash slot 1 is half moved", next=step))

    assert found.next.endswith(f"`valkey-cli --tls --cacert /ca.pem {ADMIN} --cluster fix 10.0.0.1:6379`.")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("HGET", "k", "f"), "k"),
        (("EVALSHA", "sha", 2, "k", "l", "arg"), "k"),
        (("EVAL", "return 1", 1, "k"), "k"),
        (("XINFO", "STREAM", "k"), "k"),
        (("MEMORY", "USAGE", "k"), "k"),
        (("TIME",), None),
        (("CONFIG", "GET", "save"), None),
        (("CONFIG GET", "save"), None),
        (("SCAN", b"0"), None),
    ],
)
def test_the_key_of_a_command_is_found(words, key):
    assert key_of(words) == key


def test_keys_of_one_tag_share_a_slot():
    assert slot_of("switchyard:{mail}:bodies") == slot_of(b"switchyard:{mail}:mail.bell") != slot_of("{sms}")


def test_a_cluster_is_addressed_by_some_of_its_nodes():
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
def test_an_address_that_cannot_be_used_says_why(url, fact):
    with pytest.raises(UnusableAddress, match=fact):
        split_cluster_url(url)


class Told(HashSlots):
    """A map that was read."""

    def __init__(self) -> None:
        super().__init__([], lambda address, answer_s: None)
        half = SLOTS // 2
        self._keep([[0, half - 1, [b"", 1, b"id"]], [half, SLOTS - 1, [b"b", 2], [b"c", 3]]], ("asked", 9))


def test_the_map_names_the_master_of_each_slot():
    slots = Told()

    assert slots.masters() == [("asked", 1), ("b", 2)]
    assert slots.master_of("foo") == ("b", 2)  # slot 12182
    assert slots.master_of(None) == ("asked", 1)


def test_a_moved_slot_is_learned_and_an_asked_one_is_not():
    slots = Told()

    assert slots.redirected(AskError("12182 d:4"), ("b", 2)) == ("d", 4)
    assert slots.master_of("foo") == ("b", 2)
    assert slots.redirected(MovedError("12182 :4"), ("b", 2)) is None
    assert slots.master_of("foo") == ("b", 4)


def test_any_512_slots_in_a_row_have_a_marker():
    marks = [marks_of_part(Keys(), tag) for tag in PARTS]

    assert [slot_of(marker) for marker, _ in marks] == list(range(0, SLOTS, 512))
    assert all(slot_of(marker) == slot_of(missed) for marker, missed in marks)


def test_a_familys_marker_moves_with_the_family():
    keys = Keys(slot_groups=(("mail", "first"),))

    assert {slot_of(name) for name in marks_of_family(keys, "mail")} == {slot_of(keys.queue("mail").bodies)}
