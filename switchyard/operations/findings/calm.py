"""A headline that keeps still: which finding leads, and its words and button, stay for 10 s for all who look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.redis.own_keys import encode, read
from switchyard.broker.shapes import Whole
from switchyard.operations.findings.finding import ENDED, LEVELS, Finding, Ranked, explains

KEPT_MS: Final = 10_000
# The words of a finding that has just come to lead may change: the pools' reports, every 2 s, say more of it.
SETTLES_MS: Final = 4_000
# A number or a time span, which may move: "5,895 ", "1 min 02 s".
_NUMBER: Final = re.compile(r"(\d[\d.,:]*( (ms|s|min|h|days?)\b)? ?)+")


@dataclass(frozen=True, slots=True)
class Headline:
    """The finding that leads, since when, and when it was last found with these words and this button."""

    finding: Finding
    since: Whole
    found_at: Whole


HEADLINE: Final = msgspec.json.Decoder(Headline)


def calm(found: Sequence[Ranked]) -> list[Ranked]:
    """Return findings in the order in which they are shown, with the headline that all processes share.

    The headline is kept in the broker; while that fails, findings are returned as they are.
    """
    if not found:
        return []
    records = facilities().records
    key = records.keys.headline()
    try:
        [data] = records.calls.look([("GET", key)])
        said, headline = keep(found, None if data is None else read(HEADLINE, data, key), now_ms())
        records.calls.command("SET", key, encode(headline), "PX", KEPT_MS)
    except BrokerError:
        return list(found)
    return said


def keep(found: Sequence[Ranked], kept: Headline | None, now: int) -> tuple[list[Ranked], Headline]:
    """Return findings, at least one, as they are said, and the headline to keep. One that has ended leads no longer."""
    lead = found[0]
    mine = None if kept is None else _again(found, kept.finding)
    if kept is None or mine is None or (mine is not lead and not _waits(lead, mine, now - kept.since)):
        return list(found), Headline(lead.finding, now, now)
    others = [each for each in found if each is not mine]
    settled = now - kept.since >= SETTLES_MS and now - kept.found_at < KEPT_MS
    if settled and mine.finding.severity == kept.finding.severity and _words(mine.finding) != _words(kept.finding):
        return [replace(mine, finding=kept.finding), *others], kept
    return [mine, *others], Headline(mine.finding, kept.since, now)


def _waits(lead: Ranked, mine: Ranked, led_ms: int) -> bool:
    """Return whether a finding waits for the one that leads: it is neither worse nor its cause, which is no past."""
    alike = LEVELS[lead.level] >= LEVELS[mine.level] and mine.finding.name != ENDED
    return led_ms < KEPT_MS and alike and not explains(lead, mine)


def _again(found: Sequence[Ranked], finding: Finding) -> Ranked | None:
    """Return a finding as it is found now, of several that with the same words; ``None`` for one that has ended."""
    of = (finding.name, finding.subject, finding.actor)
    alike = [each for each in found if (each.finding.name, each.finding.subject, each.finding.actor) == of]
    return next((each for each in alike if _words(each.finding) == _words(finding)), alike[0] if alike else None)


def _words(finding: Finding) -> tuple[str, ...]:
    """Return what does not change while numbers move: the sentence's words, the label, and where the button leads."""
    button = finding.button
    leads = (button.link, button.of, _NUMBER.sub("#", button.label)) if button is not None else ()
    return (_NUMBER.sub("#", finding.seen), finding.word, *leads)
