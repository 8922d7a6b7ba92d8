"""``python -m project.demo.setup FD [--sample]``: everything the database needs before the parts start, in one process.

Writes what the demo must know as JSON to the descriptor ``FD``. Changes nothing that is there already, so every start
runs it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

USERNAME = "admin"
TOKEN_NAME = "demo"  # noqa: S105 (a name, no secret)
SCOPES = ("submit", "read", "operate")


def prepare(*, with_sample: bool) -> dict[str, Any]:
    """Migrate, make user, token and sample shop where they are missing, and return the token and the shop's facts.

    Args:
        with_sample: Also enqueue the sample work that starts later; ``facts["scheduled"]`` has its job ids.
    """
    from django.conf import settings
    from django.core.management import call_command

    from apps.platform.api.tokens import find_token
    from project.demo import credentials, identity, scheduled_work
    from project.demo.shop_facts import find_facts
    from project.demo.state import StateFolder

    state = StateFolder(settings.SWITCHYARD.state_dir)
    call_command("migrate", interactive=False, verbosity=1)
    user = _ensure_user(identity.load(state.identity).admin_password)
    token = _ensure_token(user, credentials.kept_token(state.credentials))
    call_command("seed")
    facts = find_facts()
    if with_sample:
        found = find_token(token)
        facts["scheduled"] = scheduled_work.send(found.owner_key if found else "")
    return {"username": USERNAME, "api_token": token, "facts": facts}


def _ensure_user(password: str) -> Any:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    found = users.filter(username=USERNAME).first()
    if found is None:
        return users.create_superuser(USERNAME, "admin@switchyard.example", password)
    return found


def _ensure_token(user: Any, kept: str) -> str:
    from apps.platform.api.tokens import create_token, find_token

    if kept and find_token(kept) is not None:
        return kept
    return create_token(owner=user, scopes=SCOPES, name=TOKEN_NAME)[1]


if __name__ == "__main__":
    django.setup()
    with os.fdopen(int(sys.argv[1]), "w") as answer:
        json.dump(prepare(with_sample="--sample" in sys.argv), answer)
