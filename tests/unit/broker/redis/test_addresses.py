"""Hosts of an address that are this machine."""

from __future__ import annotations

import pytest

from switchyard.broker.redis.addresses import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.11", "::1"])
def test_addresses_of_the_loopback_interface_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [None, "", "10.0.0.1", "valkey", "128.0.0.1", "127.example.com", "::2"])
def test_other_hosts_are_not(host: str | None) -> None:
    assert not is_loopback(host)
