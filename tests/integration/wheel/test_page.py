"""``docs/how-to/put-it-into-an-existing-project.md``, followed to the letter in an empty environment."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

from tests.held_port import held_port
from tests.integration.wheel.environments import clean_environment, run
from tests.unit.documentation.pages import read
from tests.waiting import wait_for


class Browser:
    def __init__(self) -> None:
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, url: str) -> tuple[int, str]:
        return self._open(Request(url))

    def log_in(self, url: str, username: str, password: str) -> tuple[int, str]:
        """Fill in the log-in form that an address redirects to, and return status and text of that address then."""
        _, form = self.get(url)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        assert token is not None, form
        path = re.sub(r"^https?://[^/]+", "", url)
        fields = {"csrfmiddlewaretoken": token[1], "username": username, "password": password, "next": path}
        root = url.removesuffix(path)
        request = Request(f"{root}/admin/login/", urlencode(fields).encode(), {"Referer": url})
        return self._open(request)

    def _open(self, request: Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=30) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


pytestmark = pytest.mark.timeout(900)  # builds, installs and starts processes, beside other tests
PAGE = "docs/how-to/put-it-into-an-existing-project.md"
PORT = "127.0.0.1:8000"


def test_every_step_of_the_page_works(clone, index, tmp_path):
    with held_port() as port:
        address = f"127.0.0.1:{port}"
        page = read(PAGE).replace("/path/to/switchyard", str(clone)).replace(PORT, address)
        offline = clean_environment(
            PIP_NO_INDEX="1", PIP_FIND_LINKS=str(index.wheels), PIP_NO_COMPILE="1", PIP_CONFIG_FILE="/dev/null",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )  # fmt: skip
        reader = Reader(page, tmp_path, offline)
        try:
            _follow(reader, f"http://{address}", index.wheel)
        except BaseException:
            print(reader.logs())
            raise
        finally:
            reader.stop()


def _follow(reader: Reader, root: str, wheel: Path) -> None:
    first = wheel.read_bytes()
    built = reader.follow(reader.blocks("Build and install"))
    assert built.splitlines()[0] == str(wheel)
    assert wheel.read_bytes() == first, "the same sources gave other bytes"

    reader.follow(reader.blocks("Four additions"))

    tested = reader.follow(reader.blocks("Test it"))
    assert re.search(r"^Ran 2 tests", tested, re.MULTILINE), tested

    broker, *running, doctor = reader.blocks("Run it")
    reader.follow([broker])
    wait_for(lambda: "ready: " in reader.logs(), timeout_s=30)
    assert "System check identified no issues" in reader.follow(running)
    browser = Browser()
    _sees_the_mail(reader.place)
    _sees_the_pages(reader, browser, root)
    examined = reader.follow([doctor], code=1)
    assert "scheduler" in examined
    assert "Traceback" not in examined + reader.logs()

    declared = reader.follow(reader.blocks("Queues and pools"))
    assert re.search(r"^.*slow.*processes", declared, re.MULTILINE), declared

    *drop, last = reader.blocks("Take it out again")
    web, pools, broker_code = reader.stop()
    assert (pools, broker_code) == (0, 0), (web, pools, broker_code)
    reader.follow(drop)
    reader.undo_files()
    reader.follow([last])
    with closing(sqlite3.connect(reader.place / "db.sqlite3")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not [table for table in tables if table.startswith("switchyard")]


def _sees_the_mail(place: Path) -> None:
    def mails() -> str:
        return "".join(file.read_text() for file in (place / "mails").glob("*"))

    wait_for(lambda: "Good to have you with us." in mails(), timeout_s=120)


def _sees_the_pages(reader: Reader, browser: Browser, root: str) -> None:
    def answers() -> bool:
        with suppress(URLError):
            return browser.get(f"{root}/healthz")[0] == 200
        return False

    wait_for(answers, timeout_s=120)
    addresses = re.findall(rf"<({re.escape(root)}/\S+)>", reader.page)
    assert len(addresses) == 3
    for address in addresses:
        status, text = browser.get(address)
        if "/admin/" in address:
            status, text = browser.log_in(address, "ada", "a-long-word")
            assert "urgent" in text
        assert status == 200, text
    metrics = browser.get(f"{root}/metrics")[1]
    assert "switchyard_queue_depth" in metrics
    assert re.search(r'^switchyard_messages_total{actor="welcome".*} 1\.0$', metrics, re.MULTILINE), metrics


# Commands that the page has the reader start in a terminal of their own.
STAYS = re.compile(r"python (-m switchyard\.embedded|manage\.py (switchyard runpools|runserver .*))\s*")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.py)(, at the end)?\n")


@dataclass
class Reader:
    """Follows a page, section by section.

    Args:
        page: The page's text.
        folder: An empty folder to work in.
        environment: Environment of the first command; what the commands change in it stays.
    """

    page: str
    folder: Path
    environment: dict[str, str]
    before: dict[Path, str | None] = field(default_factory=dict)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._state = self.folder / "shell-state"
        self._place = self.folder / "shell-folder"
        self._state.write_text("")
        self._place.write_text(str(self.folder))

    @property
    def place(self) -> Path:
        return Path(self._place.read_text().strip())

    def blocks(self, heading: str) -> list[tuple[str, str]]:
        """Return language and text of the blocks below a heading, which may be the beginning of its text."""
        [section] = re.findall(rf"^## {heading}.*\n((?:(?!^## ).*\n?)*)", self.page, re.MULTILINE)
        return [(language, text) for language, text in BLOCK.findall(section)]

    def follow(self, blocks: list[tuple[str, str]], *, code: int = 0) -> str:
        """Do what some blocks say, and return what the commands printed.

        Args:
            code: The exit code that the last command of each block is to have.
        """
        printed = ""
        for language, text in blocks:
            if language == "python":
                self._write(text)
            elif STAYS.fullmatch(text):
                self._leave_running(text)
            else:
                printed += self.shell(text, code=code)
        return printed

    def shell(self, text: str, *, code: int = 0) -> str:
        """Run lines of shell where the lines before left it, and return what they printed."""
        script = f"set -e\n. {self._state}\ncd '{self.place}'\n{text}\nexport -p >{self._state}\npwd >{self._place}\n"
        return run("bash", "-c", script, cwd=self.folder, environment=self.environment, code=code)

    def undo_files(self) -> None:
        """Take every file's text back to what it was before the page."""
        for file, text in self.before.items():
            file.unlink() if text is None else file.write_text(text)

    def stop(self) -> list[int]:
        """Send SIGTERM to what was left running, the last first, and return the exit codes."""
        codes = []
        while self._running:
            process = self._running.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                codes.append(process.wait(60))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return codes

    def logs(self) -> str:
        """Return what the commands said that were left running."""
        return "\n".join(f"{log.name}: {log.read_text()}" for log in sorted(self.folder.glob("terminal-*")))

    def _write(self, text: str) -> None:
        named = FILE.match(text)
        assert named is not None, f"no first line says which file this is:\n{text}"
        file = self.place / named[1]
        old = file.read_text() if file.exists() else None
        self.before.setdefault(file, old)
        code = text.removeprefix(named[0])
        file.write_text(f"{old or ''}\n{code}" if named[2] else code)

    def _leave_running(self, text: str) -> None:
        script = f". {self._state}\ncd '{self.place}'\nexec {text}"
        with (self.folder / f"terminal-{len(self._running)}").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    ["bash", "-c", script], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
