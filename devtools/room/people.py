"""Users of the yard, each with a session, so that nobody types a password."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.test import Client

from switchyard.audit.roles import OPERATOR, READ_ONLY

BACKEND = "django.contrib.auth.backends.ModelBackend"
PEOPLE = {"ada.byron": "", "a.lind": OPERATOR, "r.holm": READ_ONLY}


def make() -> dict[str, str]:
    """Create a superuser, an operator and a user who only reads; return name -> session key."""
    sessions = {}
    for name, role in PEOPLE.items():
        user = User(username=name, email=f"{name}@example.com", is_staff=True, is_superuser=not role)
        user.set_unusable_password()
        user.save()
        if role:
            user.groups.add(Group.objects.get(name=role))
        client = Client()
        client.force_login(user, BACKEND)
        sessions[name] = str(client.session.session_key)
    return sessions
