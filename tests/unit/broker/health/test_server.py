"""The reported state of a server is judged by the same rules in every caller."""

from dataclasses import replace
from typing import Any

import pytest

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.broker.health.server import ServerFacts, facts_of, judge

SOUND = ServerFacts(
    name="Valkey", version=(9, 1, 2), policy="noeviction", append_only=True, snapshots="", role="master",
    loading=False, used_bytes=100, max_bytes=0, disk_refuses=False, hidden="",
)  # fmt: skip


def found(production: bool = True, **changed: Any) -> list[tuple[str, str]]:
    return [(item.code, item.severity) for item in judge(replace(SOUND, **changed), production=production)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"policy": "volatile-lfu"}, [("evicting", "error")]),
        ({"role": "slave"}, [("replica", "error")]),
        ({"disk_refuses": True}, [("disk", "error")]),
        ({"loading": True}, [("loading", "warning")]),
        ({"name": "Valkey", "version": (7, 2, 4)}, [("too_old", "error")]),
        ({"name": "Redis", "version": (6, 2, 14)}, [("too_old", "error")]),
        ({"name": "Redis", "version": (7, 0, 0)}, []),
        ({"name": "Valkey", "version": (8, 0, 0)}, []),
        ({"name": "Redis", "version": None}, []),
        ({"used_bytes": 899, "max_bytes": 1_000}, []),
        ({"used_bytes": 900, "max_bytes": 1_000}, [("nearly_full", "warning")]),
        ({"used_bytes": 1_050, "max_bytes": 1_000}, [("nearly_full", "warning")]),
        ({"append_only": False}, [("nothing_kept", "error")]),
        ({"append_only": False, "snapshots": "3600 1"}, [("snapshots_only", "warning")]),
        ({"append_only": False, "snapshots": None}, [("nothing_kept", "error")]),
        ({"append_only": None, "hidden": "NOPERM"}, [("unverified", "warning")]),
        ({"loading": True, "policy": "allkeys-lru"}, [("evicting", "error"), ("loading", "warning")]),
    ],
)
def test_each_fault_is_found_and_nothing_else(changed, expected):
    assert found(**changed) == expected


@pytest.mark.parametrize("changed", [{"append_only": False}, {"append_only": False, "snapshots": "3600 1"}])
def test_a_development_machine_may_do_without_persistence(changed):
    assert found(production=False, **changed) == []


def test_what_a_user_may_not_ask_is_taken_from_what_it_may_and_a_server_that_answers_neither_is_away():
    denied = BrokerRefused("INFO", "this user may not")

    from_settings = facts_of(denied, [b"maxmemory-policy", b"allkeys-lru", b"appendonly", b"no", b"save", b""])
    from_info = facts_of(b"maxmemory_policy:allkeys-lru\r\naof_enabled:1\r\nredis_version:7.2.4\r\n", denied)

    seen = (from_settings.policy, from_settings.append_only, from_settings.hidden)
    assert seen == ("allkeys-lru", False, denied.cause)
    assert (from_info.policy, from_info.append_only, from_info.snapshots) == ("allkeys-lru", True, None)
    assert from_info.version == (7, 2, 4)
    with pytest.raises(BrokerUnavailable):
        facts_of(BrokerUnavailable("INFO", "loading"), BrokerUnavailable("CONFIG", "loading"))
