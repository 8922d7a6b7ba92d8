"""``python -m devtools.room.seed``: fill a yard, then make more of one thing or another on request.

Migrates and fills the database, and sends jobs to the pools that start meanwhile.
Prints ``prepared`` when pools may start, and ``facts`` with JSON when every job has the state it was sent for:
``sessions`` of users, ``jobs`` by state, ``rows``: the key of one row of each model of the admin. Then answers each
line of standard input, a JSON list of a name of ``makers.MAKERS`` and its arguments, with a line of JSON, until it is
closed.
"""

import json
import sys
from typing import Any

import django


def main() -> None:
    """Fill the yard of this process's environment."""
    django.setup()
    from django.core.management import call_command

    from apps.retention import services as retention
    from devtools.room import jobs, rows
    from devtools.room.yard import until
    from switchyard.broker.clock import now_ms
    from switchyard.history.models import JobRow

    call_command("migrate", verbosity=0)
    sessions = _people()
    rows.make_products()
    retention.work(now_ms(), for_s=10.0)  # so that its page has figures
    rows.make_acts()
    _say("prepared")
    sent = jobs.send_waiting()
    running = jobs.send_running()
    ended = jobs.send_ending()
    jobs.wait_for(ended | sent | {"running": running[0]})
    in_history = [ended["succeeded"], ended["dead"], ended["cancelled"]]
    until(lambda: JobRow.objects.filter(job_id__in=in_history).count() == len(in_history), "the history to be written")
    facts = {"sessions": sessions, "jobs": sent | ended | {"running": running[0]}, "rows": _rows()}
    _say(f"facts {json.dumps(facts)}")
    _answer()


def _people() -> dict[str, str]:
    """Create a superuser, an operator and a user who only reads; return name -> session key."""
    from django.contrib.auth.models import Group, User
    from django.test import Client

    from switchyard.audit.services import OPERATOR, READ_ONLY

    sessions = {}
    for name, role in {"ada.byron": "", "a.lind": OPERATOR, "r.holm": READ_ONLY}.items():
        user = User(username=name, email=f"{name}@example.com", is_staff=True, is_superuser=not role)
        user.set_unusable_password()
        user.save()
        if role:
            user.groups.add(Group.objects.get(name=role))
        client = Client()
        client.force_login(user, "django.contrib.auth.backends.ModelBackend")
        sessions[name] = str(client.session.session_key)
    return sessions


def _rows() -> dict[str, Any]:
    """Return app label and model name -> key of its first row, for every model of the admin that has rows."""
    from django.apps import apps
    from django.contrib import admin

    found = {}
    for model in filter(admin.site.is_registered, apps.get_models()):
        if model._meta.managed and (row := model._default_manager.order_by("pk").first()) is not None:
            found[model._meta.label_lower.replace(".", "/")] = str(row.pk)
    return found


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _answer() -> None:
    from devtools.room.makers import MAKERS

    for number, line in enumerate(sys.stdin):
        name, *arguments = json.loads(line)
        _say(f"answer {number} {json.dumps(MAKERS[name](*arguments))}")


if __name__ == "__main__":
    main()
