"""A Jira with one project, OPS: its REST as far as tickets need it, over real HTTP."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.factories.endpoints import Answering, answers_of

TOKEN = "canary-secret-token"
BASIC = "Basic b3BzQGV4YW1wbGUuY29tOmNhbmFyeS1zZWNyZXQtdG9rZW4="
WAYS: list[dict[str, Any]] = [
    {"id": "11", "to": {"statusCategory": {"key": "indeterminate"}}},
    {"id": "31", "to": {"statusCategory": {"key": "done"}}},
    {"id": "41", "to": {"statusCategory": {"key": "done"}}},
]
Answer = tuple[int, Any]


class Jira:
    """Tickets by key, each with ``fields``, ``comments`` and ``category``.

    ``ways``: its transitions; ``unseen``: keys that a search does not find yet; ``lose``: paths whose next POST is done
    and has no answer; ``broken``: bytes sent in place of each answer.
    """

    def __init__(self, *, cloud: bool = True) -> None:
        self.tickets: dict[str, dict[str, Any]] = {}
        self.ways = WAYS
        self.unseen: set[str] = set()
        self.lose: list[str] = []
        self.requests: list[str] = []
        self.broken: Callable[[], Iterator[bytes]] | None = None
        self.host = ""
        self._cloud = cloud

    @contextmanager
    def serving(self) -> Iterator[Jira]:
        jira = self

        class Handler(Answering):
            def do_GET(self) -> None:
                self.find(None)

            def do_POST(self) -> None:
                self.find(json.loads(self.body()))

            def find(self, body: Any) -> None:
                jira.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                if jira.broken is not None:
                    self._pour(jira.broken())
                    return
                allowed = BASIC if jira._cloud else f"Bearer {TOKEN}"
                known = self.headers["Authorization"] == allowed
                status, found = jira.answer(self.command, self.path, body) if known else (401, {})
                if self.command == "POST" and any(self.path.endswith(path) for path in jira.lose):
                    jira.lose.clear()
                    return
                self.answer(status, b"" if found is None else json.dumps(found).encode())

            def _pour(self, parts: Iterator[bytes]) -> None:
                try:
                    for part in parts:
                        self.wfile.write(part)
                except OSError:
                    return  # the other side has given up

        with answers_of(Handler) as port:
            self.host = f"127.0.0.1:{port}"
            yield self

    @property
    def url(self) -> str:
        secret = f"ops@example.com:{TOKEN}" if self._cloud else TOKEN
        return f"jira://{secret}@{self.host}/OPS"

    def answer(self, method: str, path: str, body: Any) -> Answer:
        path, _, query = path.removeprefix("/rest/api/").partition("?")
        if method == "POST" and path == ("3/search/jql" if self._cloud else "2/search"):
            return 200, {"issues": self._found(body["jql"])}
        if method == "POST" and path == "2/issue":
            return self._create(body["fields"])
        match = re.fullmatch(r"2/issue/(OPS-\d+)(/comment|/transitions)?", path)
        if match is None or match[1] not in self.tickets:
            return 404, {"errorMessages": ["gone"]}
        ticket = self.tickets[match[1]]
        match method, match[2]:
            case "GET", None:
                assert query == "fields=status,description&expand=transitions"
                return 200, self._shown(match[1], description=ticket["fields"]["description"]) | {
                    "transitions": self.ways
                }
            case "GET", "/comment":
                assert query == "orderBy=-created&maxResults=10"
                return 200, {"comments": [{"body": each} for each in ticket["comments"][:-11:-1]]}
            case "POST", "/comment":
                ticket["comments"].append(body["body"])
                return 201, {"id": "1", "body": body["body"]}
            case "POST", "/transitions":
                way = next(each for each in self.ways if each["id"] == body["transition"]["id"])
                ticket["category"] = way["to"]["statusCategory"]["key"]
                return 204, None
        return 405, {}

    def _found(self, jql: str) -> list[dict[str, Any]]:
        match = re.fullmatch(r'labels = "(\S+)" ORDER BY created DESC', jql)
        assert match is not None
        keys = [key for key, ticket in self.tickets.items() if match[1] in ticket["fields"]["labels"]]
        return [self._shown(key) for key in reversed(keys) if key not in self.unseen]

    def _shown(self, key: str, **fields: Any) -> dict[str, Any]:
        status = {"name": "A", "statusCategory": {"id": 2, "key": self.tickets[key]["category"]}}
        return {"id": "1", "key": key, "fields": {"status": status, **fields}}

    def _create(self, fields: dict[str, Any]) -> Answer:
        if fields["project"] != {"key": "OPS"} or "\n" in fields["summary"] or len(fields["summary"]) > 255:
            return 400, {"errors": {"summary": "wrong"}}
        key = f"OPS-{len(self.tickets) + 1}"
        self.tickets[key] = {"fields": fields, "comments": [], "category": "new"}
        return 201, {"id": "10000", "key": key, "self": f"https://{self.host}/rest/api/2/issue/10000"}


def drip() -> Iterator[bytes]:
    """Yield an answer that finds no ticket, a byte of it at a time: for 1.5 s."""
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n{"issues": []'
    paced = threading.Event()
    for _ in range(29):
        paced.wait(0.05)
        yield b" "
    yield b"}"


def flood() -> Iterator[bytes]:
    """Yield an answer longer than any that is read."""
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{"issues": ["'
    for _ in range(100):
        yield b"a" * 1_000_000


def nonsense(body: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body])
