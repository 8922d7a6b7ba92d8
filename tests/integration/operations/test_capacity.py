"""Metrics of the room that is left, read from real servers."""

import pytest
from django.db import connection

from switchyard.operations.metrics import broker_memory, database_connections, disk
from switchyard.operations.supervisors import read_server_state
from switchyard.operations.timeouts import TimedCall

pytestmark = pytest.mark.django_db


def test_open_and_allowed_connections_are_those_of_a_postgresql_and_none_of_sqlite():
    found = {family.name: family.samples[0].value for family in TimedCall("database", database_connections).result(30)}

    if connection.vendor != "postgresql":
        assert found == {}
    else:
        assert 1 <= found["switchyard_database_connections"] <= found["switchyard_database_connections_max"]


def test_memory_of_the_broker_is_absent_without_a_limit(facilities, valkey):
    calls, keys = facilities.records.calls, facilities.records.keys
    before = valkey.config_get("maxmemory")["maxmemory"]
    try:
        valkey.config_set("maxmemory", 0)
        assert list(broker_memory(read_server_state(calls, keys))) == []

        valkey.config_set("maxmemory", 10**9)
        used, most = (family.samples[0].value for family in broker_memory(read_server_state(calls, keys)))
    finally:
        valkey.config_set("maxmemory", before)

    assert 0 < used < most == 10**9


def test_disk_of_the_state_folder_has_a_size_and_free_space():
    free, size = (family.samples[0].value for family in disk())

    assert 0 < free < size
