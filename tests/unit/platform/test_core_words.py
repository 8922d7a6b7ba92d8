"""The core has no word of an add-on: what one knows stays in its folder."""

import re

from tests.unit.documentation.pages import ROOT

WORDS = ("rabbit", "amqp", "pika", r"\bquorum\b", "cluster", "crossslot", "hash_slot", "(?-i:MOVED)")
# A word of Sentinel's protocol: how many of the sentinels have to agree.
OF_SENTINEL = {"switchyard/broker/health/servers.py": {"quorum"}}
KINDS = (".py", ".lua", ".html", ".js", ".css")
ADDON = re.compile(r"^\s*(from|import) (switchyard|tests)\.addons\b", re.MULTILINE)


def test_no_file_of_the_core_names_what_an_add_on_knows():
    word = re.compile("|".join(WORDS), re.IGNORECASE)
    found = {}
    for folder in (ROOT / "switchyard", ROOT / "middleware"):
        for path in folder.rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in KINDS and not name.startswith("switchyard/addons/"):
                words = {each.lower() for each in word.findall(path.read_text(encoding="utf-8"))}
                if words := words - OF_SENTINEL.get(name, set()):
                    found[name] = words

    assert found == {}


def test_no_test_of_the_core_imports_an_add_on():
    """Without add-ons every other test is collected still."""
    tests = (path for path in (ROOT / "tests").rglob("*.py") if not path.is_relative_to(ROOT / "tests/addons"))

    assert [path.relative_to(ROOT) for path in tests if ADDON.search(path.read_text(encoding="utf-8"))] == []
