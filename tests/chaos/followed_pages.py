"""Pages of the documentation whose blocks a test runs, in order, with its own servers in place of the page's."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.chaos.pools import ROOT, RunningPool
from tests.unit.documentation.pages import read

BLOCK = re.compile(r"^( *)```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
MANAGE = f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "manage.py"}" "$@"\n'
LONGEST_S = 120


class FollowedPage:
    """Reader of a page, who takes each block once, from the top, and runs it in a shell that knows ``manage.py``.

    Args:
        text: The page.
        replaced: Text of the page -> the test's own, such as addresses of servers.
        folder: For the shells and what they print.
        environment: Of every shell. It names no server: the page does.

    Raises:
        AssertionError: a text to replace is not on the page.
    """

    def __init__(self, text: str, replaced: Mapping[str, str], folder: Path, environment: Mapping[str, str]) -> None:
        for theirs, ours in replaced.items():
            assert theirs in text, f"the page no longer has {theirs}"
            text = text.replace(theirs, ours)
        self.text, self._folder = text, folder
        self.left = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in BLOCK.findall(text)]
        programs = folder / "programs"
        programs.mkdir()
        (programs / "manage.py").write_text(MANAGE)
        (programs / "manage.py").chmod(0o700)
        own = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
        self._environment = {**own, **environment, "PATH": f"{programs}:{os.environ['PATH']}"}
        self._started: list[RunningPool] = []

    def block(self) -> str:
        """Take the next block.

        Raises:
            AssertionError: there is none.
        """
        assert self.left, "every block of the page is taken"
        return self.left.pop(0)

    def command(self, words: str) -> str:
        """Return a command that the page's prose names.

        Raises:
            AssertionError: it does not.
        """
        assert f"`{words}`" in self.text, f"the page no longer has {words}"
        return words

    def run(self, script: str, **environment: str) -> str:
        """Run lines of shell and return what they printed.

        Raises:
            AssertionError: one of them exited with another code than 0.
        """
        done = subprocess.run(
            ["bash", "-ec", script], **self._shell(environment), capture_output=True, text=True, timeout=LONGEST_S
        )
        assert done.returncode == 0, f"{script}\nexited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, script: str, **environment: str) -> RunningPool:
        """Run lines of shell, the last of which stays."""
        *before, last = script.strip().splitlines()
        log = Path(tempfile.mkstemp(prefix="log-", dir=self._folder)[1])
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-ec", "\n".join([*before, f"exec {last}"])], **self._shell(environment), stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._started.append(RunningPool(process, log))
        return self._started[-1]

    def kill(self) -> None:
        """End what still runs."""
        for running in self._started:
            running.kill()

    def _shell(self, environment: dict[str, str]) -> dict[str, object]:
        folder = tempfile.mkdtemp(prefix="shell-", dir=self._folder)
        own = {"SWITCHYARD_STATE_DIR": folder, "PROMETHEUS_MULTIPROC_DIR": f"{folder}/metrics"}
        return {"cwd": folder, "env": {**self._environment, **own, **environment}}


@contextlib.contextmanager
def followed(
    path: str, replaced: Mapping[str, str], folder: Path, environment: Mapping[str, str]
) -> Iterator[FollowedPage]:
    """Follow a page to its end; the arguments are those of :class:`FollowedPage`.

    Raises:
        AssertionError: a block of the page was not taken.
    """
    page = FollowedPage(read(path), replaced, folder, environment)
    try:
        yield page
    finally:
        page.kill()
    assert not page.left, f"{path} has blocks that this test does not follow: {page.left}"
