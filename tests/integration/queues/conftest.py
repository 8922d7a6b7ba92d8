"""Users of the queues' pages."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


def _client(name: str, *rights: str) -> Client:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


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
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client
