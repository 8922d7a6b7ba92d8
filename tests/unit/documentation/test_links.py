"""Pages link what exists and can be reached; each room begins with its page; the site has all of them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard import __version__
from tests.unit.documentation.pages import PAGES, ROOT, anchors, name_of

LINK = re.compile(r"\]\(([^)\s]+)\)")
LIBRARY = ROOT / "switchyard"
ROOMS = (
    *("actors", "alerts", "api", "audit", "broker", "bulk", "dead_letters", "frame", "history", "jobs", "middleware"),
    *("operations", "queues", "schedules", "tasks", "testing", "workers"),
)
ORDER = re.compile(r"Files in reading order: (.+?)(?=\n\n|\.\s+Public|\Z)", re.DOTALL)
PAGES_OF_ROOMS = {
    file.parent.relative_to(LIBRARY).as_posix(): page
    for file in [LIBRARY / "middleware" / "__init__.py", *LIBRARY.rglob("__init__.py")]
    if ORDER.search(page := ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_within_the_repository_resolves(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if path == "" else (page.parent / path).resolve()
        assert file.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name_of(page)}: no heading {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [(ROOT / "README.md").resolve()]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8")))
        ahead += [(page.parent / path).resolve() for path in targets if path and not re.match(r"[a-z]+:", path)]

    assert {name_of(page) for page in PAGES} - {name_of(page) for page in seen} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_splits_no_table_names_files_that_exist_and_installs_no_other_switchyard(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:switchyard|middleware|project|apps|devtools)/[\w/]+\.\w+)`", text)

    assert re.findall(r"^\|.*\|\n\n+(\|.*\|)\n(?!\| ?:?-)", text, re.MULTILINE) == []
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert re.findall(r"pip install ['\"]?switchyard.*", text) == []


@pytest.mark.parametrize("room", sorted({*ROOMS, *PAGES_OF_ROOMS}))
def test_a_room_begins_with_its_page_whose_files_are_there(room: str) -> None:
    [order] = ORDER.findall(PAGES_OF_ROOMS[room])
    below = [path for pattern in ("*", "*/*") for path in (LIBRARY / room).glob(pattern)]
    names = {path.stem for path in below if path.is_dir() or path.suffix == ".py"}

    assert set(re.findall(r"``(\w+)``", order)) - names == set()
    if room in ROOMS:
        assert "keeps true" in PAGES_OF_ROOMS[room] and "Public" in PAGES_OF_ROOMS[room]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with an older version beside this one; no link in it leads nowhere."""
    folder: Path = tmp_path_factory.mktemp("site")
    for version in ("0.9.0", "0.2.1"):
        (folder / version).mkdir()
        (folder / version / "llms.txt").touch()
    command = [sys.executable, "-m", "docs.site.build", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(180)
def test_each_page_is_in_it_in_its_contents_and_in_the_list_for_programs(site: Path) -> None:
    first = (site / __version__ / "README.html").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((\S+)\)", (site / __version__ / "llms.txt").read_text(encoding="utf-8"))

    for page in map(name_of, PAGES):
        html = f"{page.removesuffix('.md')}.html"
        assert (site / __version__ / html).is_file(), page
        assert f"_sources/{page}.txt" in listed, page
        if page not in ("README.md", "SECURITY.md") and not page.startswith("docs/decisions/0"):
            assert f'<a class="reference internal" href="{html}">' in first, page
    assert [path for path in listed if not (site / __version__ / path).is_file()] == []


@pytest.mark.timeout(180)
def test_it_is_searched(site: Path) -> None:
    index = (site / __version__ / "searchindex.js").read_text(encoding="utf-8")

    assert "docs/how-to/requeue-dead-letters" in index
    assert '"requeu":' in index or "requeu:" in index


@pytest.mark.timeout(180)
def test_versions_stand_beside_each_other_and_the_newest_is_shown(site: Path) -> None:
    assert json.loads((site / "versions.json").read_text()) == [__version__, "0.9.0", "0.2.1"]
    assert f"url={__version__}/README.html" in (site / "index.html").read_text()
