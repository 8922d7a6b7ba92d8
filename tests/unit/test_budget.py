"""No package and no part of the surface is larger than ``budget.toml`` allows."""

import pytest

from tests.budget import ceilings, code_lines, figures

RECORD = "take something out, or raise it with a decision record (docs/decisions/) that names what was taken out"
SLACK = 0.03  # of all code lines: several slices may be merged before the ceilings follow


@pytest.fixture(scope="module")
def present() -> dict[str, dict[str, int]]:
    return figures()


@pytest.mark.parametrize("table", ["code", "lines", "words", "surface"])
def test_nothing_is_over_its_ceiling(table, present):
    limits = ceilings()[table]

    over = {name: here - limits.get(name, 0) for name, here in present[table].items() if here > limits.get(name, 0)}

    assert over == {}, f"budget.toml, [{table}]: over by so many; {RECORD}"


def test_ceilings_follow_what_is_taken_out(present):
    allowed, here = sum(ceilings()["code"].values()), sum(present["code"].values())

    assert here >= allowed * (1 - SLACK), f"{allowed - here} lines of code are gone; lower it: python -m tests.budget"


def test_comments_docstrings_and_blanks_are_no_code():
    text = '"""A.\n\nB.\n"""\n# why\nTEXT = """a\nb"""  # what\n\n\ndef f():\n    """Do."""\n    return (\n 1\n )\n'

    assert code_lines(text) == 6
