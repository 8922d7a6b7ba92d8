"""Picture of a job's waits and runs, to scale: geometry in SVG units, and the same in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from switchyard.broker.clock import now_ms
from switchyard.console.formatting import duration
from switchyard.jobs.passport.reading import Passport

WIDTH = 1_000
# A shorter span is drawn this wide, so that it is seen; its text is the table's.
LEAST = 3
# Units that a letter of a label takes, and the least distance between two marks of the axis.
LETTER, BETWEEN_MARKS = 7, 120
STEPS_MS = (1, 2, 5, 10, 15, 20, 30, 60)
FAILED = ("dead", "retrying")


@dataclass(frozen=True, slots=True)
class Span:
    """A wait or a run.

    Args:
        kind: ``wait``, ``ok``, ``bad`` or ``live``; the class in the style sheet.
        label: Text within it; "" where there is no room.
        title: Its figures, for a pointer that rests on it.
    """

    x: float
    width: float
    kind: str
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a job.

    Args:
        marks: Places of the axis with their texts.
        sentence: What the picture shows.
    """

    waits: tuple[Span, ...]
    runs: tuple[Span, ...]
    marks: tuple[tuple[float, str], ...]
    sentence: str
    width: int = WIDTH


def picture_of(job: Passport) -> Picture | None:
    """Return the picture of a job, or ``None`` when no time of it is known."""
    if job.enqueued_at is None:
        return None
    began = job.enqueued_at
    ended = max(job.finished_at if job.ended and job.finished_at is not None else now_ms(), began)
    waits, runs = list(_waits(job, began, ended)), list(_runs(job, ended))
    whole = max(ended - began, 1)

    def span(start: int, end: int, kind: str, text: str) -> Span:
        x = (start - began) / whole * WIDTH
        width = max((end - start) / whole * WIDTH, LEAST)
        x = max(min(x, WIDTH - width), 0)
        label = text if len(text) * LETTER < width else ""
        return Span(round(x, 1), round(width, 1), kind, label, text)

    waited, ran = sum(end - start for start, end in waits), sum(end - start for start, end, _, _ in runs)
    failed = sum(end - start for start, end, kind, _ in runs if kind == "bad")
    return Picture(
        waits=tuple(span(start, end, "wait", f"waited {duration(end - start)}") for start, end in waits),
        runs=tuple(span(*run) for run in runs),
        marks=tuple(_marks(whole)),
        sentence=_sentence(job, ended - began, waited, ran, failed),
    )


def _runs(job: Passport, ended: int) -> Iterator[tuple[int, int, str, str]]:
    for each in job.attempts:
        if each.started_at is None:
            continue
        end = ended if each.finished_at is None else each.finished_at
        kind = "live" if each.finished_at is None else "bad" if each.state in FAILED else "ok"
        sign = {"live": "▶", "bad": "✕", "ok": "✓"}[kind]
        text = f"{sign} attempt {each.number}, {duration(end - each.started_at)}"
        yield each.started_at, max(end, each.started_at), kind, text


def _waits(job: Passport, began: int, ended: int) -> Iterator[tuple[int, int]]:
    """Yield the times in which no known attempt ran."""
    last = began
    for each in job.attempts:
        if each.started_at is None:
            continue
        if each.started_at > last:
            yield last, each.started_at
        last = max(last, ended if each.finished_at is None else each.finished_at)
    if ended > last and (not job.ended or not job.attempts):
        yield last, ended


def _marks(whole_ms: int) -> Iterator[tuple[float, str]]:
    step = _step(whole_ms * BETWEEN_MARKS / WIDTH)
    at = 0
    while at <= whole_ms:
        yield round(at / whole_ms * WIDTH, 1), "0" if at == 0 else f"+{duration(at)}"
        at += step


def _step(least_ms: float) -> int:
    unit = 1
    while True:
        for step in STEPS_MS:
            if step * unit >= least_ms:
                return step * unit
        unit = unit * 60 if unit >= 1_000 else unit * 10


def _sentence(job: Passport, whole: int, waited: int, ran: int, failed: int) -> str:
    if job.ended:
        text = f"Took {duration(whole)} from enqueueing to its end: {duration(waited)} waiting, {duration(ran)} running"
    else:
        text = f"Enqueued {duration(whole)} ago: {duration(waited)} waiting, {duration(ran)} running"
    return f"{text}, of which {duration(failed)} in attempts that failed." if failed else f"{text}."
