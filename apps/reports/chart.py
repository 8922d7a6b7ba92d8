"""The statement's chart: invoiced beside paid, month by month, as SVG."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 380
LEFT, RIGHT, TOP, BOTTOM = 66, 4, 14, 40
BAR, BETWEEN = 22, 4
INVOICED, PAID = "#1d5fa6", "#a9c9ec"
INK, LINE, AXIS = "#5c6673", "#e6e9ee", "#7d8794"
STEPS = (1, 2, 2.5, 5, 10)


def bars(rows: Sequence[tuple[str, Decimal, Decimal]], currency: str) -> str:
    """Return the chart as an SVG document.

    Args:
        rows: ``(month, invoiced, paid)``, oldest first; the last month is the statement's own.
        currency: Named on the axis.
    """
    highest = max((float(amount) for _, *pair in rows for amount in pair), default=0.0)
    step = _step(highest)
    top = max(-(-highest // step), 1) * step
    slot = (WIDTH - LEFT - RIGHT) / max(len(rows), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Inter" font-size="13">'
    ]
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        colour = AXIS if number == 0 else LINE
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{colour}" stroke-width="1"/>')
        parts.append(_text(LEFT - 12, y + 4.5, _short(number * step), anchor="end"))
    for position, (month, invoiced, paid) in enumerate(rows):
        middle = LEFT + slot * (position + 0.5)
        last = position == len(rows) - 1
        parts.append(_bar(middle - BAR - BETWEEN / 2, float(invoiced), top, INVOICED))
        parts.append(_bar(middle + BETWEEN / 2, float(paid), top, PAID))
        first = datetime.date.fromisoformat(f"{month}-01")
        parts.append(_text(middle, HEIGHT - BOTTOM + 19, f"{first:%b}", bold=last))
        if position == 0 or first.month == 1:
            parts.append(_text(middle, HEIGHT - BOTTOM + 35, str(first.year), size=11.5))
    parts.append(_text(LEFT - 12, HEIGHT - BOTTOM + 19, currency, anchor="end", size=11.5))
    return "".join([*parts, "</svg>"])


def _step(highest: float) -> float:
    if highest <= 0:
        return 100.0
    size = 1.0
    while size * 10 * 4 < highest:
        size *= 10
    return next(size * step for step in STEPS if size * step * 4 >= highest)


def _y(amount: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * amount / top


def _bar(x: float, amount: float, top: float, colour: str) -> str:
    if amount <= 0:
        return ""
    y = min(_y(amount, top), HEIGHT - BOTTOM - 1.5)
    base, round_ = HEIGHT - BOTTOM, min(3.0, HEIGHT - BOTTOM - y)
    return (
        f'<path fill="{colour}" d="M{x:.1f} {base}V{y + round_:.1f}q0 {-round_:.1f} {round_:.1f} {-round_:.1f}'
        f'h{BAR - 2 * round_:.1f}q{round_:.1f} 0 {round_:.1f} {round_:.1f}V{base}Z"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: float = 13, bold: bool = False) -> str:
    style = f'fill="{"#171c24" if bold else INK}" font-weight="{600 if bold else 400}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{escape(text)}</text>'


def _short(amount: float) -> str:
    if amount >= 1_000_000:
        return f"{amount / 1_000_000:g}M"
    return f"{amount / 1_000:g}k" if amount >= 10_000 else f"{amount:,.0f}"
