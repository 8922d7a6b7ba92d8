"""Users of the API."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User

RIGHTS = ("submit_work", "view_job", "cancel_job")


def api_user(name: str = "ada", *rights: str) -> User:
    """Return a new user whose tokens may have every scope; with ``rights``, who has these permissions alone."""
    user = User.objects.create_user(name)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights or RIGHTS))
    return user
