"""A yard whose processes log in with the users of the rendered ACL file."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, Request, build_opener

from dramatiq.message import Message

from project.config import BASE_DIR
from switchyard.addon import addon_for
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis import acl
from switchyard.broker.redis.connections import connect
from switchyard.wiring import build_yard
from tests.integration.serving.web_process import WebProcess
from tests.tls import GuardedServer
from tests.verdicts.yard.yard import YARD

TEXT_BYTES = 4_000_000


class GuardedYard:
    """Processes on one server, each with the user of its role.

    Args:
        binary: The server's program.
        place_url: Of a server that keeps the messages, beside that server; "" where that does.
    """

    def __init__(self, folder: Path, binary: Path, *, place_url: str = "") -> None:
        self._place_url, self._addon = place_url, addon_for(place_url.partition(":")[0])
        roles = acl.roles(Keys().queue(queue.name) for queue in YARD.queues)
        users = acl.render(self._addon.call("rights", roles, roles) if self._addon else roles)
        users = re.sub(r"user (\S+) off", r"user \1 on >\1", users)
        self.folder = folder
        self.server = GuardedServer(folder / "server", binary, users)
        (folder / "state").mkdir()
        self.web = WebProcess(
            folder / "state",
            place_url or self.server.url("switchyard-room"),
            {"DJANGO_SETTINGS_MODULE": "tests.verdicts.yard.settings", "SWITCHYARD_CORES": "1"}
            | self._addresses("room"),
        )
        self.sender, self.reader = (self._broker(role) for role in ("producer", "room"))
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start ``manage.py`` with arguments as a role's user."""
        with self.log(arguments[0]).open("ab") as output:
            command = [sys.executable, "manage.py", *arguments]
            process = subprocess.Popen(command, cwd=BASE_DIR, env=self._environment(role), stdout=output, stderr=output)
        self._started.append(process)
        return process

    def run(self, role: str, *arguments: str) -> str:
        """Run ``manage.py`` with arguments as a role's user to its end; return what it printed, whatever its code."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=BASE_DIR, env=self._environment(role), capture_output=True, text=True)
        assert "NOPERM" not in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def send(self, actor: str, queue: str, *args: Any, delay_ms: int | None = None, **options: Any) -> str:
        """Send a job as a producer; return its id."""
        message: Message[Any] = Message(queue, actor, args, {}, options)
        return self.sender.enqueue(message, delay=delay_ms).message_id

    def state(self, job: str) -> str:
        found = facilities(self.sender).records.read(job)
        return "" if found is None else found.state

    def rows(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "state" / "db.sqlite3", timeout=30)) as database, database:
            return database.execute(query, values).fetchall()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def refused(self) -> list[tuple[Any, Any, Any]]:
        """Return user, command or key, and context of all that the server refused."""
        with connect(self.server.url()) as admin:
            return [(row["username"], row["object"], row["context"]) for row in admin.acl_log()]

    def close(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for broker in (self.sender, self.reader):
            broker.close()
            broker.client.close()
        self.server.close()

    def _broker(self, role: str) -> Any:
        client = connect(self.server.url(f"switchyard-{role}"))
        if self._addon is None:
            return build_yard(YARD, client, Keys())
        return build_yard(YARD, client, Keys(), place=self._addon.load("place"), url=self._place_url)

    def _environment(self, role: str) -> dict[str, str]:
        return {**self.web.environment, **self._addresses(role)}

    def _addresses(self, role: str) -> dict[str, str]:
        own = self.server.url(f"switchyard-{role}")
        if not self._place_url:
            return {"SWITCHYARD_BROKER_URL": own}
        return {"SWITCHYARD_BROKER_URL": self._place_url, "SWITCHYARD_REDIS_URL": own}


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **named: Any) -> None:
        """Leave a redirection to the caller."""


class Browser:
    """Session of ``ada`` at a web, by plain requests."""

    def __init__(self, web: WebProcess) -> None:
        self._web, self._cookies = web, CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self._cookies), _Stay())
        self.request("GET", "/admin/login/")
        status = self.request("POST", "/admin/login/", {"username": "ada", "password": "correct horse"})
        assert status == 302, f"login was answered by {status}"

    def request(self, method: str, path: str, data: dict[str, str] | None = None) -> int:
        """Send a request and read its answer, of a stream the first line; return the status."""
        address = f"http://127.0.0.1:{self._web.port}{path}"
        headers = {"Referer": address}
        if path.startswith("/api/"):
            headers |= self._web.bearer
        headers["X-CSRFToken"] = next((str(each.value) for each in self._cookies if each.name == "csrftoken"), "")
        body = urlencode(data or {}).encode() if method == "POST" else None
        try:
            with self._opener.open(Request(address, body, headers, method=method), timeout=60) as answer:
                if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                    answer.readline()
                else:
                    answer.read(TEXT_BYTES)
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code
