"""The chart is valid SVG whatever the amounts are."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.reports.chart import HEIGHT, bars

MONTHS = [f"2026-{number:02d}" for number in range(1, 13)]
AMOUNTS = st.lists(st.decimals(0, 10**10, places=2), min_size=24, max_size=24)


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_month_and_the_steps_of_the_axis_are_named():
    rows = [(month, Decimal(100 * number), Decimal(50)) for number, month in enumerate(MONTHS)]

    shown = texts(bars(rows, "EUR"))

    assert [name for name in shown if name.isalpha()] == [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "EUR",
    ]  # fmt: skip
    assert [name for name in shown if name[0].isdigit() and name != "2026"] == ["0", "500", "1,000", "1,500"]


@given(AMOUNTS)
def test_no_bar_leaves_the_picture(amounts):
    rows = [(month, amounts[2 * number], amounts[2 * number + 1]) for number, month in enumerate(MONTHS)]

    root = ElementTree.fromstring(bars(rows, "EUR"))

    tops = [node.attrib["d"].split("V")[1].split("q")[0] for node in root if node.attrib.get("fill", "").startswith("#")
            and "V" in node.attrib.get("d", "")]  # fmt: skip
    assert all(0 <= float(top) <= HEIGHT for top in tops)


@pytest.mark.parametrize("rows", [[], [("2026-10", Decimal(0), Decimal(0))]])
def test_nothing_to_show_is_a_chart_too(rows):
    assert "0" in texts(bars(rows, "EUR"))
