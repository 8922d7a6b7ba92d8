"""Tickets of Jira, Cloud or Data Center: one for each cause, commented while it lasts, closed once it is over."""

import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from switchyard.alerts import channels
from switchyard.alerts.channels import ChannelFailed, IncidentChannel, digest, inert
from switchyard.alerts.notice import Notice

MOST_BYTES: Final = 1 << 20
# Begin macros, links and mentions such as [~ada], the last perhaps in a block of plain text too.
LIVE: Final = str.maketrans({"{": "\uff5b", "[": "\uff3b"})
# Label -> path of the last ticket that this process has created: Cloud's search finds it some seconds later.
created_here: dict[str, str] = {}
MOST_CREATED: Final = 1_000


@dataclass(frozen=True, slots=True)
class JiraChannel(IncidentChannel):
    """Channel that keeps one ticket for each cause, and moves it to a done status once it is over.

    A label made of the cause finds the ticket, and each text has a mark of its message: a repeated attempt adds
    nothing. A second ticket is created only after a lost answer, or by another process, within the seconds that Cloud's
    search is behind; both are closed.

    Args:
        key: Value of the header ``Authorization``: Basic with Cloud, Bearer with a Data Center.

    Source: https://developer.atlassian.com/cloud/jira/platform/search-and-reconcile/
    """

    project: str
    issue_type: str

    @property
    def name(self) -> str:
        return f"jira {self.origin.partition('://')[2]}/{self.project}"[:200]

    def send(self, notice: Notice) -> None:
        channels.within_deadline(self.name, _Message(self, notice, time.monotonic() + channels.DEADLINE_S).send)


@dataclass(frozen=True, slots=True)
class _Message:
    """One message to Jira, with no request after a time of the monotonic clock."""

    channel: JiraChannel
    notice: Notice
    ends_s: float

    def send(self) -> None:
        """Create a ticket or comment on it; at the end of the cause comment on all there are, and close them."""
        label = f"switchyard-{digest(f'{self.channel.name} {self.notice.cause}', 16)}"
        try:
            tickets, ended = self._open(label), self.notice.alert.resolved_at is not None
            if not tickets and not ended:
                self._create(label)
            for ticket in tickets if ended else tickets[:1]:
                done = [each["id"] for each in ticket["transitions"] if _is_done(each["to"])] if ended else []
                by_hand = "No transition leads from its status to a done one: close it by hand.\n"
                self._comment(ticket, by_hand if ended and not done else "")
                if done:
                    self._ask(f"{_path(ticket)}/transitions", {"transition": {"id": done[0]}})
        except (AttributeError, LookupError, TypeError, msgspec.DecodeError):
            fact = f"answered what is not Jira's JSON, or over {MOST_BYTES:,} bytes"
            raise ChannelFailed(self.channel.name, fact, answered=True) from None

    def _open(self, label: str) -> list[Any]:
        """Return the tickets of a label that are not done, the newest first."""
        query = {"jql": f'labels = "{label}" ORDER BY created DESC', "fields": ["status"], "maxResults": 10}
        found = self._ask("3/search/jql" if self.channel.key.startswith("Basic") else "2/search", query)["issues"]
        # Forgotten until Jira answers for it: a person may have deleted it.
        created = [created_here.pop(label)] if label in created_here else []
        paths = dict.fromkeys(created + [_path(each) for each in found if not _is_done(each["fields"]["status"])])
        # Each is asked: a search may be behind, of statuses as well.
        tickets = [self._ask(f"{path}?fields=status,description&expand=transitions") for path in paths]
        created_here.update((label, path) for path in created)
        return [ticket for ticket in tickets if not _is_done(ticket["fields"]["status"])]

    def _create(self, label: str) -> None:
        fields = {
            "project": {"key": self.channel.project}, "issuetype": {"name": self.channel.issue_type},
            "summary": inert(" ".join(self.notice.headline.split()))[:255], "description": self._words(),
            "labels": [label],
        }  # fmt: skip
        created_here[label] = _path(self._ask("2/issue", {"fields": fields}))
        if len(created_here) > MOST_CREATED:
            del created_here[next(iter(created_here))]

    def _comment(self, ticket: Any, more: str) -> None:
        path = f"{_path(ticket)}/comment"
        newest = self._ask(f"{path}?orderBy=-created&maxResults=10")["comments"]
        texts = (ticket["fields"].get("description"), *(each["body"] for each in newest))
        if not any(self._mark in (text or "") for text in texts):
            self._ask(path, {"body": self._words(more)})

    @property
    def _mark(self) -> str:
        return f"Message {digest(f'{self.notice.id} {self.notice.alert.resolved_at}', 16)}"

    def _words(self, more: str = "") -> str:
        text = inert(self.notice.text).translate(LIVE)
        return f"{{noformat}}\n{text}\n{{noformat}}\n{self.notice.alert.link}\n{more}{self._mark}"

    def _ask(self, path: str, body: object = None) -> Any:
        name, url = self.channel.name, f"{self.channel.origin}/rest/api/{path}"
        if time.monotonic() >= self.ends_s:
            raise ChannelFailed(name, "no answer in time")
        headers, at = {"Authorization": self.channel.key}, f" at {path.partition('?')[0]}"
        return msgspec.json.decode(channels.ask(name, url, body, headers, at=at, most_bytes=MOST_BYTES) or b"null")


def _is_done(status: Any) -> bool:
    return bool(status["statusCategory"]["key"] == "done")


def _path(ticket: Any) -> str:
    return f"2/issue/{quote(ticket['key'], safe='')}"
