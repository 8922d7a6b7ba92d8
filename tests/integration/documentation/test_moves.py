"""The pages about Celery, RQ and Huey, followed on small projects of these systems: nothing of theirs is installed."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from switchyard.embedded.server import EmbeddedServer
from switchyard.testing import run_enqueued
from tests.integration.documentation.moved_project import Page, functions, page, write_project
from tests.waiting import wait_for

PAGES = {system: page(f"docs/how-to/move-from-{system}.md") for system in ("celery", "rq", "huey")}
# Of the projects, which no task concerns.
REST = {
    "news/feeds.py": "def read(address):\n    return 'news'\n",
    "bookmarks/pages.py": "def title_of(bookmark_id):\n    return 'A page'\n",
}
FILES = {name: text for page in PAGES.values() for name, text in page.after.items()} | REST
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
    project = write_project(tmp_path / "host", FILES)
    count = sum(text.count("    def test_") for name, text in FILES.items() if name.endswith("/tests.py"))

    printed = project.manage("test", *project.apps)

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
        project = write_project(tmp_path / "host", FILES, broker_url=server.url)
        project.manage("migrate")
        project.manage("shell", "-c", SEND)

        def states() -> list[tuple[str, str]]:
            jobs = json.loads(project.manage("switchyard", "jobs", "list", "--json"))["jobs"]
            return sorted((job["actor"], job["state"]) for job in jobs)

        pools = project.start_pools()
        try:
            wait_for(lambda: states() == sorted(ENDED), timeout_s=120, what="every job that is due has succeeded")
            pools.send_signal(signal.SIGTERM)
            assert pools.wait(60) == 0, (tmp_path / "host/pools.log").read_text()
        finally:
            pools.kill()
            pools.wait()
