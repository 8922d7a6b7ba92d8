"""Users of the queues' pages."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.factories.staff import client_of, staff


def _client(name: str, *rights: str) -> Client:
    return staff(*rights, name=name)


@pytest.fixture
def watcher(transactional_db: None) -> Client:
    """A staff user who may see the operations room."""
    return _client("watcher", "view_operations")


@pytest.fixture
def operator(transactional_db: None) -> Client:
    """A staff user who may pause and purge as well."""
    return _client("operator", "view_operations", "pause_queue", "purge_queue")


@pytest.fixture
def superuser(transactional_db: None) -> Client:
    """A superuser."""
    return client_of(User.objects.create_superuser("root"))
