"""Browsers of people who are logged in."""

from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client


def staff(*rights: str, name: str = "", **options: Any) -> Client:
    """Return the browser of a new staff user who has these permissions alone; the options are the client's."""
    user = User.objects.create_user(name or f"staff{User.objects.count()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return client_of(user, **options)


def client_of(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


def log_in(*rights: str) -> Client:
    """Return the browser of a staff user with these permissions; without any, that of the superuser ``root``."""
    return staff(*rights, name="staff") if rights else client_of(User.objects.create_superuser("root"))
