"""Alerts grouped by fingerprint within a window, so that a thousand failures are a handful of messages.

Raising is one call. The scheduler sends: the first alert of a group is due at once, further ones are due as one digest
when the window (``window_ms``) ends.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerRefused
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.own_keys import encode, note, number, read, utf8
from switchyard.broker.redis.scripts import script
from switchyard.broker.shapes import Whole

WINDOW_MS = 10 * 60_000
CLAIM_MS = 30_000
RAISE, CLAIM, SETTLE, END = (script(f"alert_{name}", folder="") for name in ("raise", "claim", "settle", "end"))


class AlertFact(msgspec.Struct, frozen=True):
    """One fact to report. ``at``: ms since the epoch, by default now; ``severity``: "" for the kind's own."""

    fingerprint: str
    kind: str
    title: str
    detail: str
    queue: str = ""
    actor: str = ""
    at: Whole = msgspec.field(default_factory=now_ms)
    severity: str = ""

    @property
    def name(self) -> str:
        """Name that rules know it by: of a finding, ``broker.`` with a code, else the kind."""
        if self.kind in ("finding", "broker"):
            return self.fingerprint.removeprefix("finding-").replace("broker-", "broker.", 1)
        return self.kind


SAMPLE: Final = msgspec.json.Decoder(AlertFact)


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
        return int(self._calls.call(RAISE, keys, [fact.fingerprint, self._window_ms, encode(fact)], repeatable=False))

    def counts(self, fingerprints: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        """Return the groups that exist now: fingerprint -> times of the first and last alert (ms), and their count."""
        if not fingerprints:
            return {}
        keys = [self._keys.alert_group(name) for name in fingerprints]
        answers = self._calls.look([("HMGET", key, "first_at", "last_at", "count") for key in keys])
        found = {
            name: (number(first, key), number(last, key), number(count, key))
            for name, key, (first, last, count) in zip(fingerprints, keys, answers, strict=True)
        }
        return {name: each for name, each in found.items() if all(each)}

    def look(self, limit: int = 20) -> None:
        """Read the groups that are due first; whatever of them cannot be read is noted."""
        due = self._keys.alerts_due()
        [members] = self._calls.look([("ZRANGE", due, 0, limit - 1)])
        names = [utf8(member) for member in members]
        self.counts(names)
        answers = self._calls.look([("HGET", self._keys.alert_group(name), "sample") for name in names])
        for member, name, sample in zip(members, names, answers, strict=True):
            if name.encode() != member or (sample and not read(SAMPLE, sample, self._keys.alert_group(name))):
                note(due, f"{member!r} names no group that can be read")

    def claim_due(self, limit: int = 20) -> list[AlertGroup]:
        """Claim groups that are due. A claim that is not settled expires after 30 s, and the group is due again.

        One that cannot be read is put off for a window, so that it holds up no other.
        """
        due = self._keys.alerts_due()
        claimed = []
        for member in self._calls.command("ZRANGE", due, 0, limit - 1):
            fingerprint = utf8(member)
            key = self._keys.alert_group(fingerprint)
            try:
                found = self._calls.call(CLAIM, [due, key], [member, CLAIM_MS, uuid.uuid4().hex])
            except BrokerRefused as error:
                note(key, error)
                found = [0, b""]
            if not found:
                continue
            token, sample, *numbers = found
            if (fact := read(SAMPLE, sample, key)) is not None and fact.fingerprint == fingerprint:
                count, sent, first_at, last_at = (number(word, key) for word in numbers)
                claimed.append(AlertGroup(fact, count, sent, first_at, last_at, str(int(token))))
            else:
                self._calls.command("ZADD", due, "XX", now_ms() + self._window_ms, member)
        return claimed

    def settle(self, group: AlertGroup) -> bool:
        """Note a claimed group as sent; ``False`` when the claim had expired."""
        keys = [self._keys.alerts_due(), self._keys.alert_group(group.fingerprint)]
        return bool(self._calls.call(SETTLE, keys, [group.fingerprint, group.token, group.count, self._window_ms]))

    def end(self, fingerprint: str, until_ms: int) -> None:
        """Make a group due at once, its alerts until a moment counted as sent: the next is told at once."""
        self._calls.call(END, [self._keys.alerts_due(), self._keys.alert_group(fingerprint)], [fingerprint, until_ms])

    def forget(self, fingerprint: str) -> None:
        """Drop a group: the next alert of its cause begins another one, which is due at once."""
        self._calls.command("DEL", self._keys.alert_group(fingerprint))
