"""``python -m demo.setup FD WEB_FD [--sample] [--fork NAMES]``: prepare the database and fork the parts.

The database part changes nothing that exists already, so every start runs it. The named parts are then forked, so that
Django is loaded once and its memory is shared. The process writes its results as JSON to the descriptor ``FD`` and
ends; its children then become children of the demo, which is their subreaper (``PR_SET_CHILD_SUBREAPER``). A part that
dies later is started from its command instead, see ``CommandPart``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import django
from setproctitle import setproctitle

from demo.identity import USERNAME, kept_token
from demo.identity import load as load_identity
from demo.parts import POOLS_ARGUMENTS
from demo.state import StateFolder
from switchyard.conf import switchyard_settings
from switchyard.workers.shared.parent_death import die_with_parent

TOKEN_NAME = "demo"  # noqa: S105 (a name, no secret)
SCOPES = ("submit", "read", "operate")
ADOPTION_POLL_S = 0.001
STANDARD_STREAMS = (1, 2)


def prepare(*, with_sample: bool) -> dict[str, Any]:
    """Migrate the database and create user, token and sample shop where they are missing.

    Args:
        with_sample: Also enqueue the delayed newsletters; ``facts["scheduled"]`` holds their job ids.

    Returns:
        ``username``, ``api_token`` and ``facts``, see :func:`demo.sample.preparation.find_facts`.
    """
    from django.core.management import call_command

    from demo.sample.preparation import enqueue_newsletters, find_facts, move_endpoints
    from switchyard.api.tokens import find_token
    from switchyard.workers.preflight import mark_keyspace

    state = StateFolder(switchyard_settings().state_dir)
    mark_keyspace()  # before anything is sent: only an empty keyspace is accepted as a new one
    call_command("migrate", interactive=False, verbosity=1)
    user = _ensure_user(load_identity(state.identity).admin_password)
    token = _ensure_token(user, kept_token(state.credentials))
    call_command("seed")
    for host, port in switchyard_settings().allowed_private_addresses:
        move_endpoints(state.sample, f"http://{host}:{port}")
    facts = find_facts()
    if with_sample:
        found = find_token(token)
        facts["scheduled"] = enqueue_newsletters(found.owner_key if found else "")
    return {"username": USERNAME, "api_token": token, "facts": facts}


def _ensure_user(password: str) -> Any:
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    found = users.filter(username=USERNAME).first()
    if found is None:
        return users.create_superuser(USERNAME, "admin@switchyard.example", password)
    return found


def _ensure_token(user: Any, kept: str) -> str:
    from switchyard.api.tokens import create_token, find_token

    if kept and find_token(kept) is not None:
        return kept
    return create_token(owner=user, scopes=SCOPES, name=TOKEN_NAME)[1]


def preload() -> None:
    """Import what every forked part needs: URLs, the ASGI application and its server."""
    from importlib import import_module

    from django.core.checks import run_checks

    run_checks()
    import_module("project.asgi")
    import_module("switchyard.serving.server")
    import_module("uvloop")


def job_of(name: str, web_descriptor: int) -> Callable[[], Any]:
    """Return the function that a forked part runs."""
    if name == "web":
        from demo.servers import serve_web

        return lambda: serve_web(web_descriptor)
    from django.core.management import execute_from_command_line

    arguments = POOLS_ARGUMENTS if name == "pools" else ()
    return lambda: execute_from_command_line(["manage.py", "switchyard", f"run{name}", *arguments])


def fork_parts(jobs: Mapping[str, Callable[[], Any]], logs: Path, keep: Mapping[str, set[int]]) -> dict[str, int]:
    """Fork a process for each job and return the pids. Does not return in a forked process.

    Call it from the only thread of the process, and end that process at once.

    Args:
        jobs: Name of a part -> the function it runs. ``SystemExit`` sets its exit code.
        logs: Folder of the logs; the output of a part goes to ``<name>.log``.
        keep: Name of a part -> descriptors that only this part keeps open.
    """
    adopter_pid, parent_pid = os.getppid(), os.getpid()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it shares
    pids = {}
    for name, job in jobs.items():
        pid = os.fork()
        if pid == 0:
            others = set().union(*keep.values()) - keep.get(name, set())
            _become(name, logs, others, parent_pid, adopter_pid)
            job()
            sys.exit(0)
        pids[name] = pid
    return pids


def _become(name: str, logs: Path, descriptors: set[int], parent_pid: int, adopter_pid: int) -> None:
    """Start a session, redirect the output to the log, close ``descriptors`` and wait for the adopter."""
    os.setsid()
    with (logs / f"{name}.log").open("ab") as log:
        for stream in STANDARD_STREAMS:
            os.dup2(log.fileno(), stream)
    for descriptor in descriptors:
        os.close(descriptor)
    setproctitle(f"switchyard: {name}")
    while os.getppid() == parent_pid:
        time.sleep(ADOPTION_POLL_S)
    end_with_adopter = die_with_parent(signal.SIGTERM, parent_pid=adopter_pid)
    if end_with_adopter is not None:
        end_with_adopter()


def main() -> None:
    """Prepare, fork, and report to the demo."""
    parser = argparse.ArgumentParser()
    parser.add_argument("answer", type=int)
    parser.add_argument("web", type=int)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--fork", type=lambda names: names.split(","), default=[])
    options = parser.parse_args()
    django.setup()
    result = prepare(with_sample=options.sample)

    if options.fork:
        preload()

    from django.db import connections

    connections.close_all()
    logs = StateFolder(Path(os.environ["SWITCHYARD_STATE_DIR"])).logs
    keep = {"web": {options.web}, "set-up": {options.answer}}
    result["pids"] = fork_parts({name: job_of(name, options.web) for name in options.fork}, logs, keep)
    with os.fdopen(options.answer, "w") as answer:
        json.dump(result, answer)


if __name__ == "__main__":
    main()
