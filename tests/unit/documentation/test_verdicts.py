"""The page of verdicts lists the situations that the tests make."""

from __future__ import annotations

import re

from tests.unit.documentation.pages import read
from tests.verdicts.situations import SITUATIONS


def test_the_page_lists_every_situation_that_is_made_with_its_seconds() -> None:
    section = read("docs/reference/verdicts.md").split("\n## Situations\n")[1]
    listed = {
        title: float(seconds)
        for seconds, block in re.findall(r"^Within (\d+) s:\n\n((?:- .+\n)+)", section, flags=re.MULTILINE)
        for title in re.findall(r"^- (.+)$", block, flags=re.MULTILINE)
    }

    assert listed == {situation.title: situation.within_s for situation in SITUATIONS}
