"""The site of the documentation is built, whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard import __version__
from tests.unit.documentation.pages import PAGES, ROOT, name_of

pytestmark = pytest.mark.timeout(180)


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


def test_it_is_searched(site: Path) -> None:
    index = (site / __version__ / "searchindex.js").read_text(encoding="utf-8")

    assert "docs/how-to/requeue-dead-letters" in index
    assert '"requeu":' in index or "requeu:" in index


def test_versions_stand_beside_each_other_and_the_newest_is_shown(site: Path) -> None:
    assert json.loads((site / "versions.json").read_text()) == [__version__, "0.9.0", "0.2.1"]
    assert f"url={__version__}/README.html" in (site / "index.html").read_text()
