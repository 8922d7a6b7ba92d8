"""Reader who follows a page to the letter: writes its files, runs its commands, leaves servers running."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.wheel.environments import run

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
