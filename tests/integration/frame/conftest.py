from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


@pytest.fixture
def watcher(db: None) -> Client:
    """A logged-in staff user who may see the overview, and nothing else."""
    user = User.objects.create_user("watcher", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_operations"))
    client = Client()
    client.force_login(user)
    return client
