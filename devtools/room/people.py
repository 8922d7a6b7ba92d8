"""Users of the yard, each with a session, so that nobody types a password."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Group, User

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
        sessions[name] = _session(user)
    return sessions


def _session(user: User) -> str:
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = BACKEND
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return str(session.session_key)
