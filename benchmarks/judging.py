"""Verdicts: measured figures against the targets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import quartiles, ratios
from benchmarks.peers import PEERS, Peer
from benchmarks.targets import (
    EVERY_KEEPING_PEER,
    EVERY_PEER,
    EVERY_PYTHON_PEER,
    Limit,
    Ratio,
    Target,
)

TOLERANCE = 0.9  # share of its target that the worse quartile of a ratio must reach
Values = Mapping[str, Mapping[str, Sequence[float | None]]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One target and its verdict.

    Args:
        target: In words.
        median, quartile: Of the ratio, or of the figure; the quartile on the worse side.
        holds: ``None`` when it was not measured.
        decides: It decides the exit code: a ratio, as the machine's speed does not matter, or a limit that says so.
    """

    target: str
    median: float | None
    quartile: float | None
    holds: bool | None
    decides: bool


def judge(target: Target, values: Values) -> Judgement:
    """Judge a target: a limit holds by its median; a ratio when its worse quartile is within a tenth of it."""
    if isinstance(target, Limit):
        runs = [value for value in values.get(target.figure, {}).get(target.peer, ()) if value is not None]
        words = f"{target.figure} of {target.peer} ≤ {target.at_most:g}"
        if not runs:
            return Judgement(words, None, None, None, decides=target.decides)
        _, median, upper = quartiles(runs)
        return Judgement(words, median, upper, median <= target.at_most, decides=target.decides)
    return _judge_ratio(target, values)


def _judge_ratio(target: Ratio, values: Values) -> Judgement:
    (top, of), (bottom, to) = target.top, target.bottom
    rival = _rival(bottom, to, values)
    runs = ratios(values.get(top, {}).get(of, ()), values.get(bottom, {}).get(rival, ()))
    words = _words(target, to if rival in ("", to) else f"{to} ({rival})")
    if not runs:
        return Judgement(words, None, None, None, decides=True)
    lower, median, upper = quartiles(runs)
    if target.at_least is not None:
        return Judgement(words, median, lower, lower >= TOLERANCE * target.at_least, decides=True)
    if target.at_most is None:
        raise ValueError(f"{words}: the target has neither at_least nor at_most")
    return Judgement(words, median, upper, TOLERANCE * upper <= target.at_most, decides=True)


def _words(target: Ratio, to: str) -> str:
    (top, of), (bottom, _) = target.top, target.bottom
    bound = f"≥ {target.at_least:g}" if target.at_least is not None else f"≤ {target.at_most:g}"
    if top == bottom:
        return f"{top}: {of} {bound} × {to}"
    return f"{of}: {top} {bound} × {bottom}" + (f" of {to}" if to != of else "")


def _rival(figure: str, to: str, values: Values) -> str:
    """Return the peer to compare with: the one named, or the best of a group by its median."""
    groups = {
        EVERY_PEER: lambda peer: True,
        EVERY_PYTHON_PEER: lambda peer: peer.language == "python",
        EVERY_KEEPING_PEER: lambda peer: peer.keeps_work,
    }
    if to not in groups:
        return to
    medians = {
        name: statistics.median(present)
        for name, runs in values.get(figure, {}).items()
        if _is_rival(PEERS.get(name)) and groups[to](PEERS[name])
        if (present := [value for value in runs if value is not None])
    }
    return max(medians, key=lambda name: medians[name], default="")


def _is_rival(peer: Peer | None) -> bool:
    return peer is not None and not peer.ours
