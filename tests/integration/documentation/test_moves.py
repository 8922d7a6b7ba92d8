"""The pages about Celery, RQ and Huey, followed on small projects of these systems: nothing of theirs is installed."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from switchyard.embedded.server import EmbeddedServer
from switchyard.testing import run_enqueued
from tests.integration.wheel.environments import Environment
from tests.integration.wheel.hosts import Host, write_host
from tests.unit.documentation.pages import ROOT, code_blocks, read
from tests.waiting import wait_for

SETTINGS = """
INSTALLED_APPS += {apps}
MIDDLEWARE += ["switchyard.api.middleware.problem_documents"]
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
"""
NAMED = re.compile(r"# (\S+\.py)(?:, ([\w ]+))?\n")


@dataclass(frozen=True)
class Page:
    """The Python files of a page.

    Args:
        before: As the other system has them; path -> text.
        after: As they are at the end.
        others: Blocks with another remark behind the path.
    """

    before: dict[str, str]
    after: dict[str, str]
    others: dict[tuple[str, str], str]


def page(path: str) -> Page:
    """Return the files of a page; each block begins with the name of its file."""
    found = Page({}, {}, {})
    for block in code_blocks(read(path), "python"):
        named = NAMED.match(block)
        assert named is not None, f"{path}: no first line says which file this is:\n{block}"
        name, remark, text = named[1], named[2], block[named.end() :]
        if remark is None:
            found.after[name] = text
        elif remark == "before":
            found.before[name] = text
        else:
            found.others[name, remark] = text
    return found


def functions(*texts: str) -> dict[str, str]:
    """Return the functions of some modules, by name, as text without their decorators' and comments' layout."""
    nodes = (node for text in texts for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {node.name: ast.unparse(node) for node in nodes}


class MovedProject(Host):
    """A project in a folder, which sees this repository's packages."""

    @property
    def variables(self) -> dict[str, str]:
        return super().variables | {"PYTHONPATH": os.pathsep.join((str(self.folder), str(ROOT)))}


def moved_project(folder: Path, broker_url: str = "redis://127.0.0.1:9/0") -> MovedProject:
    """Write the project with the files of all pages; by default there is no server."""
    written = write_host(folder, FILES, last=SETTINGS.format(apps=APPS))
    return MovedProject(Environment(Path(sys.prefix)), written, broker_url)


PAGES = {system: page(f"docs/how-to/move-from-{system}.md") for system in ("celery", "rq", "huey")}
# Of the projects, which no task concerns.
REST = {
    "news/feeds.py": "def read(address):\n    return 'news'\n",
    "bookmarks/pages.py": "def title_of(bookmark_id):\n    return 'A page'\n",
}
FILES = {name: text for page in PAGES.values() for name, text in page.after.items()} | REST
APPS = list(dict.fromkeys(name.partition("/")[0] for name in FILES))
SEND = """
from django.contrib.auth.models import User
from bookmarks.services import add, refresh
from news import actors, tasks
from shop.checkout import close, paid

ada = User.objects.create(username="ada", email="ada@example.com")
actors.welcome.send(ada.pk), actors.count_readers.send(), tasks.fetch.delay("https://example.com/feed")
add(5), refresh([1, 2]), close("2026-10"), paid(7, ada.email)
"""
ENDED = [
    *((actor, "scheduled") for actor in ("ask_for_review", "load_title")),
    *((actor, "succeeded") for actor in ("count_readers", "export", "fetch", *["load_title"] * 3, "refresh_all")),
    *((actor, "succeeded") for actor in ("send_receipt", "welcome")),
]


def test_the_tests_of_all_pages_pass_in_one_project_without_a_server(tmp_path: Path) -> None:
    project = moved_project(tmp_path / "host")
    count = sum(text.count("    def test_") for name, text in FILES.items() if name.endswith("/tests.py"))

    printed = project.manage("test", *APPS)

    assert f"Ran {count} tests" in printed
    assert count >= 8
    assert "System check identified no issues" in printed


@pytest.mark.parametrize(("system", "package"), [("celery", "celery"), ("rq", "rq"), ("huey", "huey")])
def test_what_was_there_before_is_there_after(system: str, package: str) -> None:
    moved: Page = PAGES[system]

    before, after = functions(*moved.before.values()), functions(*moved.after.values())

    assert any(f"from {package}" in text for text in moved.before.values())
    assert not any(f"from {package}" in text or "django_rq" in text for text in moved.after.values())
    assert before.keys() <= after.keys()
    assert before


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that the page's tasks import."""
    news, feeds = ModuleType("news"), ModuleType("news.feeds")
    exec(REST["news/feeds.py"], vars(feeds))
    news.feeds = feeds  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "news", news)
    monkeypatch.setitem(sys.modules, "news.feeds", feeds)
    yield feeds


@pytest.mark.django_db
@pytest.mark.usefixtures("switchyard_broker", "feeds")
def test_a_module_of_celerys_needs_one_other_line(django_user_model: Any) -> None:
    moved = PAGES["celery"]
    first, rest = moved.before["news/tasks.py"].split("\n", maxsplit=1)
    line = moved.others["news/tasks.py", "first line"]
    names: dict[str, Any] = {"__name__": "news.tasks"}

    exec(compile(line + rest, "news/tasks.py", "exec"), names)
    for name, args in (
        ("welcome", [django_user_model.objects.create(email="ada@example.com").pk]),
        ("fetch", ["feed"]),
    ):
        names[name].apply_async(args)
    names["count_readers"].delay()

    assert [(attempt.outcome, attempt.result) for attempt in run_enqueued()] == [
        ("succeeded", None),
        ("succeeded", "news"),
        ("succeeded", 1),
    ]
    assert first == "from celery import shared_task"
    assert line.strip() in moved.after["news/tasks.py"]
    assert functions(line + rest)["fetch"] == functions(moved.after["news/tasks.py"])["fetch"]


@pytest.mark.long
def test_jobs_of_all_pages_run_in_real_pools(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "valkey") as server:
        project = moved_project(tmp_path / "host", server.url)
        project.manage("migrate")
        project.manage("shell", "-c", SEND)

        def states() -> list[tuple[str, str]]:
            jobs = json.loads(project.manage("switchyard", "jobs", "list", "--json"))["jobs"]
            return sorted((job["actor"], job["state"]) for job in jobs)

        with project.running_pools() as pools:
            wait_for(lambda: states() == sorted(ENDED), timeout_s=120, what="every job that is due has succeeded")
        assert pools.returncode == 0
