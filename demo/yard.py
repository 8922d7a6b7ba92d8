"""The demo's yard: all its parts, started in order, described in ``credentials.json``, stopped in reverse order."""

import asyncio
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from importlib import import_module
from typing import Any

import urllib3

from demo.addresses import (
    HOST,
    Addresses,
    as_exports,
    database_url,
    free_again,
    listen,
    listen_near,
    port_of,
    settings_for,
    without_settings,
)
from demo.runner import POLL_S, Part, Runner, ServerPart, StopRequest, describe_exit, failure
from demo.state import (
    Identity,
    StateFolder,
    StateLock,
    Stopped,
    load_identity,
    read_private,
    write_private,
    write_private_text,
)
from project.config import BASE_DIR
from switchyard.embedded.server import EmbeddedServer
from switchyard.workers.shared.fork import prepare_to_fork

ANSWER_TIMEOUT_S = 1.0
GRACE_S = 3  # event streams stay open for as long as their readers like; without a limit they would block the stop
USERNAME = "admin"
SCOPES = ("submit", "read", "operate")
# Ctrl-C in development must not wait for a task that is stuck. The history writer runs beside the scheduler.
POOLS = ("runpools", "--grace=5", "--no-history")
STATEMENTS = 4


class DemoYard:
    """One demo on one state folder.

    Args:
        say: Called with each line about a part.
        web_port: Web port, which must be free; ``None`` takes the next free one from ``first_port`` on.
        first_port: 0 takes any free port.
        with_reload: Restart the pools when code changes.
    """

    addresses: Addresses
    identity: Identity

    def __init__(
        self,
        state: StateFolder,
        *,
        say: Callable[[str], object],
        stop: StopRequest,
        web_port: int | None = None,
        first_port: int = 0,
        with_reload: bool = False,
    ) -> None:
        self.state = state
        self.facts: dict[str, Any] = {}
        self.token = ""
        self._lock = StateLock(state)
        self._stop = stop
        self._ports = (web_port, first_port)
        self._with_reload = with_reload
        self._listeners: list[socket.socket] = []
        self._runner = Runner(say, stop)

    def start(self) -> None:
        """Start every part and return when the web answers and every pool is up. Loads Django into this process.

        Raises:
            DemoError: a part did not start, the folder or the port is in use, or a stop was requested.
                Parts that run by then keep running until :meth:`stop`.
        """
        state, logs = self.state, self.state.logs
        state.make()
        self._lock.acquire(is_stopping=self._stop.is_set)
        shutil.rmtree(state.metrics)  # files of processes that have ended
        state.make()
        kept = load_identity(state.identity)
        # No password, and the socket at the settings' default, so that `manage.py` in another terminal finds it.
        broker = EmbeddedServer(state.broker, port=free_again(kept.broker_port), socket_path=state.broker_socket)
        web, smtp, receiver = self._listen(kept)
        self._runner.start(ServerPart(broker))
        self.addresses = Addresses(port_of(web), port_of(smtp), port_of(receiver), broker.url)
        self.identity = replace(kept, broker_port=broker.port, smtp_port=port_of(smtp), receiver_port=port_of(receiver))
        self.identity.save(state.identity)
        settings = settings_for(state, self.identity, self.addresses)
        write_private_text(state.environment, as_exports(settings))
        environment = without_settings(os.environ) | settings
        # Not cleared: titles of processes are written over the environment's first variables.
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(settings)
        self._set_up(kept.receiver_port)
        self._save_credentials()
        if self._stop.is_set():
            raise Stopped("stopped before everything was ready")
        sidecars = Part("sidecars", lambda: serve_sidecars(smtp, receiver, state), logs / "sidecars.log")
        sidecars.missing = answers(port_of(receiver), "/healthz")
        pools = Part("pools", self._run_pools, logs / "pools.log", missing=missing_pools())
        site = Part("web", lambda: serve_web(web), logs / "web.log", stop_timeout_s=8.0)
        site.missing = answers(port_of(web), "/readyz")
        scheduler = Part("scheduler", serve_beside, logs / "scheduler.log")
        # Stopped in reverse: the history writer outlasts the pools, and writes what they finish while they drain.
        self._runner.start(sidecars, scheduler, pools, site)
        self._save_credentials()
        self._lock.announce(self.addresses.site)

    @property
    def is_running(self) -> bool:
        return bool(self._runner.pids)

    def restart_dead(self) -> None:
        """Restart the parts that have died. Call it several times a second."""
        if self._runner.restart_dead():
            self._save_credentials()

    def stop(self) -> None:
        """Drain and stop every part, the broker last, and release the state folder."""
        self._runner.stop()
        for listener in self._listeners:
            listener.close()
        self._lock.release()

    def _listen(self, kept: Identity) -> list[socket.socket]:
        web_port, first_port = self._ports
        self._listeners.append(listen_near(first_port) if web_port is None else listen(web_port))
        for port in (kept.smtp_port, kept.receiver_port):
            self._listeners.append(listen_near(port, next_ports=1))
        return self._listeners

    def _run_pools(self) -> None:
        os.chdir(BASE_DIR)
        if self._with_reload:  # what watches the code loads it itself
            os.execv(sys.executable, (sys.executable, "manage.py", "switchyard", *POOLS, "--reload"))  # noqa: S606
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", "switchyard", *POOLS])

    def _set_up(self, last_receiver_port: int) -> None:
        """Prepare the database in a process of its own, then load Django.

        What migrations leave in a process's memory would be in that of every part.
        """
        answer, end = os.pipe()

        def prepare_all() -> None:
            kept = read_private(self.state.credentials).get("api_token", "")
            token = prepare(self.identity.admin_password, str(kept))
            follow_receiver(last_receiver_port, self.addresses.receiver, self.state)
            os.write(end, json.dumps([token, find_facts()]).encode())

        part = Part("set-up", prepare_all, self.state.logs / "set-up.log")
        part.start()
        os.close(end)
        with os.fdopen(answer, "rb") as said:
            found = said.read()
        while (code := part.exit_code()) is None:
            time.sleep(POLL_S)
        if code:
            raise failure(part, f"ended with {describe_exit(code)}")
        self.token, self.facts = json.loads(found)
        preload()

    def _save_credentials(self) -> None:
        write_private(
            self.state.credentials,
            {
                "url": self.addresses.site,
                "username": USERNAME,
                "password": self.identity.admin_password,
                "api_token": self.token,
                "broker_url": self.addresses.broker_url,
                "database_url": database_url(self.state),
                "mail_dir_or_url": str(self.state.mailbox),
                "pids": {"demo": os.getpid()} | self._runner.pids,
            },
        )


def serve_beside() -> None:
    """Run the scheduler, the history writer and the outbox's relay until SIGTERM."""
    from switchyard.commands.run import run_beside
    from switchyard.workers.preflight import log_to_standard_error

    log_to_standard_error()
    run_beside()


def serve_web(listener: socket.socket) -> None:
    """Serve the site until SIGTERM; requests in flight have ``GRACE_S`` seconds to complete."""
    from switchyard.serving.server import serve

    # No proxy stands in front of the demo's web, so forwarded headers are not trusted.
    serve("project.asgi:application", sockets=[listener], proxy_headers=False, timeout_graceful_shutdown=GRACE_S)


def serve_sidecars(smtp: socket.socket, http: socket.socket, state: StateFolder) -> None:
    """Serve mail sink and webhook receiver until SIGTERM, the receiver in its own thread."""
    from apps.mail import sink
    from apps.webhooks.receiver import Receiver

    receiver = Receiver(listener=http, secrets_file=state.webhook_secrets, log_file=state.deliveries)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook receiver")
    thread.start()
    try:
        asyncio.run(sink.serve(sink.Mailbox(state.mailbox), sock=smtp))
    finally:
        receiver.stop()
        thread.join()


def answers(port: int, path: str) -> Callable[[], str]:
    """Return a readiness check: a GET on loopback must answer 200."""

    def missing() -> str:
        # Closed, so that parts which are forked later share no connection.
        url, closing = f"http://{HOST}:{port}{path}", {"Connection": "close"}
        try:
            status = urllib3.request("GET", url, headers=closing, timeout=ANSWER_TIMEOUT_S, retries=False).status
        except urllib3.exceptions.HTTPError as error:
            return f"no answer from {path} ({type(error).__name__})"
        return "" if status == HTTPStatus.OK else f"{path} answers {status}"

    return missing


def missing_pools() -> Callable[[], str]:
    """Return a readiness check: each pool must have reported itself up, and must have started after now.

    Reports of a killed demo's pools may not have expired yet.
    """
    from switchyard.broker.clock import now_ms
    from switchyard.broker.errors import BrokerError
    from switchyard.broker.keys import Keys
    from switchyard.broker.redis.calls import calls_on
    from switchyard.broker.redis.connections import connect
    from switchyard.broker.stores.pool_reports import PoolReports
    from switchyard.conf import switchyard_settings

    settings = switchyard_settings()
    reports = PoolReports(calls_on(connect(settings.broker_url, profile="quick"), budget_s=1.0), Keys())
    since_ms = now_ms()

    def missing() -> str:
        try:
            up = {
                report.pool for report in reports.read_all() if report.started_at >= since_ms and report.state == "up"
            }
        except BrokerError:
            up = set()
        lacking = [pool.name for pool in settings.topology.pools if pool.name not in up]
        return f"not up: {', '.join(lacking)}" if lacking else ""

    return missing


def prepare(password: str, kept_token: str) -> str:
    """Migrate the database, create user, token and sample shop where they are missing, and return the token."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from switchyard.api.tokens import create_token, find_token
    from switchyard.workers.preflight import mark_keyspace

    mark_keyspace()  # before anything is sent: only an empty keyspace is accepted as a new one
    call_command("migrate", interactive=False, verbosity=1)
    users = get_user_model().objects
    user = users.filter(username=USERNAME).first()
    if user is None:
        user = users.create_superuser(USERNAME, "admin@switchyard.example", password)
    call_command("seed")
    if kept_token and find_token(kept_token) is not None:
        return kept_token
    return create_token(owner=user, scopes=SCOPES, name="demo")[1]


def find_facts() -> dict[str, Any]:
    """Return what the sample work needs of the shop: customers, the newest full month, and an unpaid invoice."""
    from apps.shop import months, queries
    from apps.shop.models import Customer, Invoice, InvoiceStatus

    running, *full = queries.months_with_invoices()
    month = full[0] if full else running
    first, after = months.bounds(month)
    buyers = Customer.objects.filter(invoices__issued_on__gte=first, invoices__issued_on__lt=after)
    unpaid = Invoice.objects.filter(status=InvoiceStatus.OPEN, payments__isnull=True).order_by("-id").first()
    return {
        "statements": [(customer.pk, month) for customer in buyers.distinct().order_by("id")[:STATEMENTS]],
        "month": month,
        "open_invoice": unpaid and {"number": unpaid.number, "currency": unpaid.currency, "total": str(unpaid.total)},
    }


def follow_receiver(last_port: int, receiver: str, state: StateFolder) -> None:
    """Point the endpoints of earlier runs to the receiver's present address, and tell the receiver their secrets.

    The receiver gets another port when a different program has taken its last one. Deliveries that wait for a retry
    follow the endpoint.
    """
    from apps.webhooks.models import Endpoint

    for endpoint in Endpoint.objects.filter(url__startswith=f"http://{HOST}:{last_port}/"):
        path = endpoint.url.removeprefix(f"http://{HOST}:{last_port}")
        Endpoint.objects.filter(pk=endpoint.pk).update(url=receiver + path)
    secrets = Endpoint.objects.filter(url__startswith=f"{receiver}/").values_list("secret", flat=True)
    write_private_text(state.webhook_secrets, "".join(f"{secret}\n" for secret in secrets))


def preload() -> None:
    """Load Django and what the parts need, and leave nothing open that they must not share."""
    import django

    django.setup()
    from django.core.checks import run_checks
    from django.db import connections

    run_checks()
    for name in ("project.asgi", "switchyard.serving.server", "uvloop", "switchyard.commands.run"):
        import_module(name)
    connections.close_all()
    prepare_to_fork()
