"""Charts of a queue, an actor or the yard over time, from the facts, and a heat map of waits: drawn by the server."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Final

from django.db import DatabaseError
from django.db.models import Min

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, ends, failures, merged, percentile_ms, sent, starts
from switchyard.console.formatting import duration, iso
from switchyard.console.links import jobs_url
from switchyard.history.fact_keeper import hours_of
from switchyard.history.models import FactHour
from switchyard.operations.past import DATABASE_S
from switchyard.operations.timeouts import answers_within

DAY_MS: Final = 24 * facts.HOUR_MS
WIDTH, HEIGHT = 720, 120
LABELS, MOST_MARKS = 5, 12
# Rows of the table, and columns of the heat map.
PARTS: Final = 24
SHARES: Final = (("median", 0.5), ("95 %", 0.95))
PAUSES: Final = ("queue.pause", "queue.resume", "actor.pause", "actor.resume")


@dataclass(frozen=True, slots=True)
class ChartSpan:
    """A time that charts show, in bins; ``compared``: with the day before and the same day of last week."""

    name: str
    title: str
    length_ms: int
    bin_ms: int
    compared: bool = False


SPANS: Final = (
    ChartSpan("24h", "24 hours", DAY_MS, 10 * facts.MINUTE_MS, compared=True),
    ChartSpan("72h", "72 hours", 3 * DAY_MS, 30 * facts.MINUTE_MS),
    ChartSpan("year", "a year", 365 * DAY_MS, DAY_MS),
)


# A figure of a bin, of which as many milliseconds are over as the second argument says; ``None`` for none.
Value = Callable[[Counts, int], float | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line's figure: its name, its value, and how it is written."""

    title: str
    value: Value
    text: Callable[[float], str]


def _percentile(first: int, share: float) -> Value:
    return lambda counts, _: percentile_ms(counts, first, share)


def _rate(count: Callable[[Counts], int]) -> Value:
    return lambda counts, over_ms: count(counts) * facts.MINUTE_MS / over_ms if over_ms else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _figures(kind: str) -> list[tuple[str, tuple[Figure, ...]]]:
    """Return the charts of a kind (``queue``, ``actor`` or ``yard``): the main figure of each is the last."""
    wait, run = (
        tuple(Figure(title, _percentile(first, share), duration) for title, share in SHARES)
        for first in (facts.WAITS, facts.RUNS)
    )
    sends = Figure("sent", _rate(sent), _number) if kind == "actor" else Figure("started", _rate(starts), _number)
    charts = [
        ("Wait", wait),
        ("Run", run),
        ("Attempts a minute", (sends, Figure("ended", _rate(ends), _number))),
        ("Failed attempts a minute", (Figure("failed", _rate(failures), _number),)),
    ]
    if kind != "actor":
        charts.append(("Most that waited", (Figure("waiting", lambda counts, _: counts.get(facts.DEPTH), _number),)))
    return charts


def charts_of(subject: str, kind: str, chosen: str, *, target: str = "") -> dict[str, Any] | None:
    """Return the charts of a subject with their axis, and a table of the same figures, as ``charts.html`` takes them.

    ``None`` where nothing is known of it, or a server does not answer.

    Args:
        kind: ``queue``, ``actor`` or ``yard``.
        chosen: Name of a span; any other is the first.
        target: Queue or actor whose pauses are marked; "" for those of all queues.
    """
    span = next((each for each in SPANS if each.name == chosen), SPANS[0])
    try:
        now = (facilities().facts.server_ms() - facts.CLOSES_MS - facts.MINUTE_MS) // facts.MINUTE_MS * facts.MINUTE_MS
        end = -(-now // span.bin_ms) * span.bin_ms
        begin = end - span.length_ms
        with answers_within(DATABASE_S):
            bins = _bins(subject, begin, now, span)
            if not any(bins):
                return None
            compared = [
                (name, title, _hourly(subject, begin - days * DAY_MS, end - days * DAY_MS, span))
                for name, title, days in (("before", "the day before", 1), ("week", "last week", 7))
                if span.compared
            ]
            marks = list(_marks(begin, end, span, kind, target))
    except (BrokerError, DatabaseError):
        return None
    over = [min(max(now - (begin + at * span.bin_ms), 0), span.bin_ms) for at in range(len(bins))]
    figures, size = _figures(kind), -(-len(bins) // PARTS)
    firsts = range(0, len(bins), size)
    parts, starts = [merged(bins[at : at + size]) for at in firsts], [begin + at * span.bin_ms for at in firsts]
    main, times = [(title, of_chart[-1]) for title, of_chart in figures], [_clock(at, span) for at in starts]
    rows = [
        (time, *(_text(figure, counts, sum(over[at : at + size])) for _, figure in main))
        for at, time, counts in zip(firsts, times, parts, strict=True)
    ]
    return {
        "span": span,
        "spans": SPANS,
        "charts": [_chart(title, of_chart, bins, over, compared) for title, of_chart in figures],
        "marks": marks,
        "axis": [_clock(begin + span.length_ms * at // (LABELS - 1), span) for at in range(LABELS)],
        "heads": [f"{title}, {each.title}" if each.title == "95 %" else title for title, each in main],
        "rows": rows,
        "waits": heat_map(parts, starts, times, size * span.bin_ms, {kind: target} if target else {}),
    }


def _bins(subject: str, begin: int, until: int, span: ChartSpan) -> list[Counts]:
    if span.bin_ms >= facts.HOUR_MS:
        found = hours_of([subject], range(begin // facts.HOUR_MS, until // facts.HOUR_MS)).get(subject, {})
        parts = [(hour * facts.HOUR_MS, counts) for hour, counts in found.items()]
    else:
        parts = list(facilities().facts.minutes(subject, begin, until).items())
    bins: list[list[Counts]] = [[] for _ in range(span.length_ms // span.bin_ms)]
    for at, counts in parts:
        bins[(at - begin) // span.bin_ms].append(counts)
    return [merged(each) for each in bins]


def _hourly(subject: str, begin: int, until: int, span: ChartSpan) -> list[Counts]:
    """Return bins of stored hours: each bin has the counts of the hour that it begins in, and stands for all of it."""
    found = hours_of([subject], range(begin // facts.HOUR_MS, until // facts.HOUR_MS + 1)).get(subject, {})
    return [found.get((begin + at * span.bin_ms) // facts.HOUR_MS, {}) for at in range(span.length_ms // span.bin_ms)]


def _chart(
    title: str, figures: Sequence[Figure], bins: Sequence[Counts], over: Sequence[int],
    compared: Sequence[tuple[str, str, Sequence[Counts]]],
) -> dict[str, Any]:  # fmt: skip
    """Return a chart: ``top`` is the value of its upper edge, and ``kind`` of a line its class in the style sheet."""
    main = figures[-1]
    series = [("most" if figure is main else "half", figure.title, _values(figure, bins, over)) for figure in figures]
    last = next((value for value in reversed(series[-1][2]) if value is not None), None)
    for kind, name, before in compared:
        if any(before):
            series.append((kind, f"{main.title}, {name}", _values(main, before, [facts.HOUR_MS] * len(before))))
    top = max((value for _, _, values in series for value in values if value is not None), default=0.0) or 1.0
    lines = [{"kind": kind, "title": name, "path": path_of(values, top)} for kind, name, values in series]
    says = f"{title}: up to {main.text(top)}" + ("" if last is None else f", last {main.text(last)}")
    return {"title": title, "top": main.text(top), "says": says, "lines": lines}


def _values(figure: Figure, bins: Sequence[Counts], over: Sequence[int]) -> list[float | None]:
    first = next((at for at, counts in enumerate(bins) if counts), len(bins))
    values: list[float | None] = [None] * first
    before: Counts | None = None
    for counts, over_ms in zip(bins[first:], over[first:], strict=True):
        # The bins of a stored hour have its counts in common.
        values.append(values[-1] if counts is before else figure.value(counts, over_ms))
        before = counts
    return values


def path_of(values: Sequence[float | None], top: float) -> str:
    """Return values as a path of an SVG; where there is none, the line is interrupted."""
    step, parts, pen_up, at = WIDTH / max(len(values), 1), [], True, 0
    for value, same in groupby(values):
        begin, at = at, at + len(list(same))
        if value is not None:
            y = HEIGHT * (1 - min(value / top, 1.0))
            parts.append(f"{'M' if pen_up else 'L'}{step * begin:.1f} {y:.1f}H{step * at:.1f}")
        pen_up = value is None
    return "".join(parts)


def _text(figure: Figure, counts: Counts, over_ms: int) -> str:
    value = figure.value(counts, over_ms)
    return "–" if value is None or not counts else figure.text(value)


def _clock(at: int, span: ChartSpan) -> str:
    moment = datetime_of(at)
    return f"{moment:%Y-%m-%d}" if span.bin_ms >= DAY_MS else f"{moment:%a %H:%M}"


def _marks(begin: int, end: int, span: ChartSpan, kind: str, target: str) -> Iterator[dict[str, Any]]:
    """Yield the first moment of each release, and pauses with their ends, the last twelve of each."""
    found = [(at, "release", f"release {name}") for name, at in releases(begin, end)]
    if span.bin_ms < facts.HOUR_MS:
        acts = AuditEntry.objects.filter(act__in=[act for act in PAUSES if kind == "yard" or act.startswith(kind)])
        acts = acts.filter(at__gte=datetime_of(begin), at__lt=datetime_of(end), outcome=AuditEntry.Outcome.DONE)
        acts = acts.filter(target=target) if target else acts
        for moment, act, what, who in acts.order_by("-id").values_list("at", "act", "target", "who")[:MOST_MARKS]:
            done = "paused" if act.endswith("pause") else "resumed"
            found.append((round(moment.timestamp() * 1_000), "pause", f"{who} {done} {what}"))
    for at, name, text in sorted(found):
        x = round(WIDTH * (at - begin) / (end - begin), 1)
        yield {"x": x, "kind": name, "text": f"{_clock(at, span)} {text}"}


def releases(begin: int, end: int) -> list[tuple[str, int]]:
    """Return the releases that ran first within a time, with that moment, to the minute where that is known still."""
    store, first = facilities().facts, dict[str, int]()
    stored = FactHour.objects.filter(subject__gte="r:", subject__lt="r;").values("subject").annotate(first=Min("hour"))
    for subject, hour in stored.order_by("-first").values_list("subject", "first")[:MOST_MARKS]:
        first[subject] = hour * facts.HOUR_MS
    for report in facilities().pools.read_all():
        if report.release:
            first.setdefault(f"r:{report.release}", end - 2 * facts.HOUR_MS)
    found = []
    for subject, at in first.items():
        if begin <= at + 2 * facts.HOUR_MS and at < end:
            moment = min(store.minutes(subject, at, at + 3 * facts.HOUR_MS), default=at)
            found.append((subject.removeprefix("r:"), moment))
    oldest = FactHour.objects.aggregate(first=Min("hour"))["first"]
    # Of the release that ran when facts began it is not known when it came.
    since = begin if oldest is None else max(begin, (oldest + 1) * facts.HOUR_MS)
    return [(name, at) for name, at in found if since <= at < end]


# First classes of the rows: each is of waits up to four times as long as in the one below.
FIRSTS: Final = (0, *range(3, facts.CLASSES, 2))
LEVELS: Final = 5


def heat_map(
    columns: Sequence[Counts], starts: Sequence[int], times: Sequence[str], column_ms: int, only: dict[str, str]
) -> dict[str, Any] | None:
    """Return the heat map of counts by columns, its rows of cells the longest waits first; ``None`` without a start.

    A cell's ``level`` is from 0, for none, to 5, and its ``url`` that of the list of its jobs.

    Args:
        starts: Of the columns, ms since the epoch; ``times`` the same as words.
        only: Filter of the jobs, such as their queue.
    """
    ranges = pairwise((*FIRSTS, facts.CLASSES))
    counts = [[sum(column.get(facts.WAITS + n, 0) for n in range(*row)) for column in columns] for row in ranges]
    filled = [at for at, row in enumerate(counts) if any(row)]
    if not filled:
        return None
    most, rows = max(map(max, counts)), []
    spans = [jobs_url(**only, since=iso(start, "seconds"), until=iso(start + column_ms, "seconds")) for start in starts]
    for at in range(filled[-1], filled[0] - 1, -1):
        (title, waited), cells = _row(at), []
        for time, span, count in zip(times, spans, counts[at], strict=True):
            level = math.ceil(LEVELS * math.log1p(count) / math.log1p(most))
            url = f"{span}&waited={waited}" if count and span else ""
            says = f"{time}: {count:,} waited {title}"
            cells.append({"text": short(count), "level": level, "says": says, "url": url})
        rows.append((title, cells))
    return {"times": times, "rows": rows}


def _row(at: int) -> tuple[str, str]:
    """Return a row's title, and its filter of jobs."""
    low = facts.LEAST_MS * 2 ** (FIRSTS[at] - 1) if at else 0
    if at == len(FIRSTS) - 1:
        return f"over {duration(low)}", f"{low}-"
    high = facts.LEAST_MS * 2 ** (FIRSTS[at + 1] - 1)
    return f"up to {duration(high)}", f"{low if at else ''}-{high}"


def short(count: int) -> str:
    """Return a count in at most four characters: ``812``, ``1.2k``, ``45k``, ``3.1M``; "" for none."""
    value, unit = float(count), ""
    for larger in "kMG":
        if value < 999.5:
            break
        value, unit = value / 1_000, larger
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}" if count else ""
