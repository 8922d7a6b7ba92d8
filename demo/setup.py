"""``python -m demo.setup FD WEB_FD [--sample] [--fork NAMES]``: everything the parts need, in one process.

Prepares the database, changing nothing that is there already, so every start runs it. Then forks the parts that are
named, so that Django is loaded once, and writes what the demo must know as JSON to the descriptor ``FD``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

from apps.platform.conf import switchyard_settings
from demo.forking import fork_parts

USERNAME = "admin"
TOKEN_NAME = "demo"  # noqa: S105 (a name, no secret)
SCOPES = ("submit", "read", "operate")


def prepare(*, with_sample: bool) -> dict[str, Any]:
    """Migrate, make user, token and sample shop where they are missing, and return the token and the shop's facts.

    Args:
        with_sample: Also enqueue the sample work that starts later; ``facts["scheduled"]`` has its job ids.
    """
    from django.core.management import call_command

    from apps.platform.api.tokens import find_token
    from apps.platform.workers.preflight import mark_keyspace
    from demo import credentials, identity, scheduled_work
    from demo.moved_receiver import follow_receiver
    from demo.shop_facts import find_facts
    from demo.state import StateFolder

    state = StateFolder(switchyard_settings().state_dir)
    mark_keyspace()  # before anything is sent: only a keyspace without work is taken for a new one
    call_command("migrate", interactive=False, verbosity=1)
    user = _ensure_user(identity.load(state.identity).admin_password)
    token = _ensure_token(user, credentials.kept_token(state.credentials))
    call_command("seed")
    for host, port in switchyard_settings().allowed_private_addresses:
        follow_receiver(state.sample, f"http://{host}:{port}")
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


def load_everything() -> None:
    """Load what the forked parts would load each for itself: addresses, the web's application and its server."""
    from importlib import import_module

    from django.core.checks import run_checks

    run_checks()
    import_module("project.asgi")
    import_module("uvicorn.protocols.http.httptools_impl")
    import_module("uvloop")


def job_of(name: str, web_descriptor: int) -> Callable[[], Any]:
    """Return what a forked part runs."""
    if name == "web":
        from demo.web import serve

        return lambda: serve(web_descriptor)
    from django.core.management import execute_from_command_line

    return lambda: execute_from_command_line(["manage.py", f"run{name}"])


def main() -> None:
    """Run as the docstring of the module says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("answer", type=int)
    parser.add_argument("web", type=int)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--fork", type=lambda names: names.split(","), default=[])
    asked = parser.parse_args()
    django.setup()
    found = prepare(with_sample=asked.sample)

    if asked.fork:
        load_everything()

    from django.db import connections

    from demo.state import StateFolder

    connections.close_all()
    logs = StateFolder(Path(os.environ["SWITCHYARD_STATE_DIR"])).logs
    own = {"web": {asked.web}, "set-up": {asked.answer}}
    found["pids"] = fork_parts({name: job_of(name, asked.web) for name in asked.fork}, logs, own)
    with os.fdopen(asked.answer, "w") as answer:
        json.dump(found, answer)


if __name__ == "__main__":
    main()
