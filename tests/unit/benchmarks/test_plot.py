"""The drawing of the main figures."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.plot import OUR_COLOUR, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_longer_bars_are_larger_figures_and_ours_stand_out() -> None:
    values = {"drain_1x8_per_s": {"dramatiq": [2_000.0, 2_100.0, None], "switchyard": [20_000.0, 21_000.0, 22_000.0]}}

    root = ElementTree.fromstring(draw(values))

    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("x")]
    assert [bar.get("fill") == OUR_COLOUR for bar in bars] == [True, False]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert 10 < widths[0] / widths[1] < 10.5
    assert "21,000" in "".join(root.itertext())


def test_figures_that_were_not_measured_are_not_drawn() -> None:
    assert "<rect x" not in draw({"idle_p50_ms": {"switchyard": [None]}})


def test_a_single_latency_is_drawn_as_well() -> None:
    assert "<rect x" in draw({"idle_p50_ms": {"switchyard": [1.0]}})
