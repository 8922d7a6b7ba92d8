"""Alerts grouped by fingerprint within a window, so that a thousand failures are a handful of messages.

Raising is one call. The scheduler sends: the first alert of a group is due at once, further ones are due as one digest
when the window (``window_ms``) ends.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import msgspec

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import script

WINDOW_MS = 10 * 60_000
CLAIM_MS = 30_000
RAISE, CLAIM, SETTLE = (script(name, folder="") for name in ("alert_raise", "alert_claim", "alert_settle"))


@dataclass(frozen=True, slots=True)
class AlertFact:
    """One fact to report. ``at``: ms since the epoch."""

    fingerprint: str
    kind: str
    title: str
    detail: str
    queue: str
    actor: str
    at: int


class AlertGroup(msgspec.Struct, frozen=True):
    """A claimed group: its first alert, the count of alerts, and how many of them were sent before."""

    sample: AlertFact
    count: int
    sent_count: int
    first_at: int
    last_at: int
    token: str

    @property
    def fingerprint(self) -> str:
        return self.sample.fingerprint


class AlertGroups:
    """Raise, claim and settle alerts."""

    def __init__(self, calls: RedisCalls, keys: Keys, *, window_ms: int = WINDOW_MS) -> None:
        self._calls = calls
        self._keys = keys
        self._window_ms = window_ms

    def raise_(self, fact: AlertFact) -> int:
        """Count an alert in its group; return the group's count."""
        keys = [self._keys.alerts_due(), self._keys.alert_group(fact.fingerprint)]
        return int(
            self._calls.call(
                RAISE, keys, [fact.fingerprint, self._window_ms, json.dumps(asdict(fact))], repeatable=False
            )
        )

    def counts(self, fingerprints: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the groups that exist now: fingerprint -> time of the first alert (ms), and the count of alerts."""
        if not fingerprints:
            return {}
        answers = self._calls.pipeline(
            [("HMGET", self._keys.alert_group(name), "first_at", "count") for name in fingerprints]
        )
        found = dict(zip(fingerprints, answers, strict=True))
        return {name: (int(first), int(count)) for name, (first, count) in found.items() if first and count}

    def claim_due(self, limit: int = 20) -> list[AlertGroup]:
        """Claim groups that are due. A claim that is not settled expires after 30 s, and the group is due again."""
        due = self._calls.command("ZRANGE", self._keys.alerts_due(), 0, limit - 1)
        claimed = []
        for fingerprint in (str(item, "utf-8") for item in due):
            keys = [self._keys.alerts_due(), self._keys.alert_group(fingerprint)]
            found = self._calls.call(CLAIM, keys, [fingerprint, CLAIM_MS, uuid.uuid4().hex])
            if found:
                token, sample, *numbers = found
                count, sent, first_at, last_at = (int(number) for number in numbers)
                fact = AlertFact(**json.loads(sample))
                claimed.append(AlertGroup(fact, count, sent, first_at, last_at, str(int(token))))
        return claimed

    def settle(self, group: AlertGroup) -> bool:
        """Note a claimed group as sent; ``False`` when the claim had expired."""
        keys = [self._keys.alerts_due(), self._keys.alert_group(group.fingerprint)]
        return bool(self._calls.call(SETTLE, keys, [group.fingerprint, group.token, group.count, self._window_ms]))
