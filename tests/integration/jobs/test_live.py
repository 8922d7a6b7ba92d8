"""Jobs followed live, through the API and on their page: server-sent events over a real socket."""

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import urllib3
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.backends.base.base import BaseDatabaseWrapper
from django.urls import reverse

from switchyard.api.models import Token
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import EndedJob, encode
from switchyard.jobs import live
from switchyard.jobs.live import Watcher
from switchyard.jobs.passport import views
from switchyard.jobs.services import request_cancel, submit
from tests.factories.staff import staff
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for

UNKNOWN = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"


@dataclass
class Follower:
    """Reads a job's events in a thread of its own."""

    url: str
    headers: dict[str, str]
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.response: Any = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def ended(self) -> bool:
        self.thread.join(30)
        return self.closed

    def _read(self) -> None:
        pool = urllib3.PoolManager(retries=False)
        self.response = pool.request("GET", self.url, headers=self.headers, preload_content=False, timeout=30)
        self.status = self.response.status
        self.answer = {name.lower(): value for name, value in self.response.headers.items()}
        event: dict[str, Any] = {}
        for line in self._lines():
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            else:
                if "event" in event:
                    self.events.append(event | {"data": json.loads(event["data"])})
                event = {}
        self.closed = True
        pool.clear()

    def _lines(self) -> Iterator[str]:
        rest = b""
        for chunk in self.response.stream(1, decode_content=False):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode() for line in lines)


def open_streams() -> int:
    return live.Stream._open.total()


@pytest.fixture
def follow(web, headers):
    """Follow a job through the API: ``follow(job_id)`` from its first event on, or after the ``last`` that was read."""

    def follow(job_id: str, last: str | None = None) -> Follower:
        after = {} if last is None else {"Last-Event-ID": last}
        follower = Follower(f"{web}/api/v1/jobs/{job_id}/events", headers() | after)
        wait_for(lambda: follower.events or last is not None)
        return follower

    return follow


@pytest.fixture
def short_heartbeat(monkeypatch):
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)


def loops_reading() -> int:
    """Return how many event loops of this process follow a job."""
    return sum(reader._task is not None for reader in live._readers.values())


def report_progress(valkey: redis.Redis, job_id: str, done: int, note: str = "x" * 50) -> None:
    """Add an event to a job's stream, as a running job does."""
    data = json.dumps({"done": done, "total": 200, "note": note})
    valkey.xadd(facilities().records.stream_key(job_id, "default"), {"event": "progress", "data": data})


def open_connections() -> int:
    """Return how many database connections this process has open."""
    found = [thing for thing in gc.get_objects() if isinstance(thing, BaseDatabaseWrapper)]
    return sum(wrapper.connection is not None for wrapper in found)


def session(*permissions: str) -> dict[str, str]:
    """Return the headers of such a user's session."""
    return {"Cookie": f"sessionid={staff(*permissions).cookies['sessionid'].value}"}


def address_of(job_id: str, *, part: str = "events") -> str:
    return reverse(f"switchyard-job-{part}", args=[job_id])


@pytest.fixture
def knock(web, headers):
    """Ask for a job's events over sockets, and read nothing: ``knock(job_id, count)``."""
    place, token = urlsplit(web), headers()["Authorization"]

    def knock(job_id: str, count: int = 1, **options: int) -> list[socket.socket]:
        asked = f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: {token}\r\n\r\n"
        readers = []
        for _ in range(count):
            readers.append(reader := socket.socket())
            if "buffer" in options:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["buffer"])
            reader.connect((place.hostname, place.port))
            reader.sendall(asked.encode())
        return readers

    return knock


@pytest.mark.parametrize("through", ["api", "page"])
def test_a_job_is_followed_to_its_end(web, follow, ada, run_worker, through):
    job_id = submit(probe_actors.steps, owner=f"user:{ada.pk}", kwargs={"total": 3})
    follower = follow(job_id) if through == "api" else Follower(web + address_of(job_id), session("view_job"))

    wait_for(lambda: follower.events)
    with run_worker("default"):
        wait_for(lambda: "progress" in follower.names())
        probe_actors.go_on.set()
        assert follower.ended()

    assert (follower.status, follower.answer["content-type"]) == (200, "text/event-stream")
    assert (follower.answer["cache-control"], follower.answer["x-accel-buffering"]) == ("no-store", "no")
    states = [event["data"]["state"] for event in follower.events if event["event"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    progress = [event["data"] for event in follower.events if event["event"] == "progress"]
    assert progress == [{"done": n, "total": 3, "note": "first" if n == 1 else "more"} for n in (1, 2, 3)]
    assert follower.names()[-1] == "end"
    assert follower.names().count("end") == 1
    ids = [tuple(map(int, event["id"].split("-"))) for event in follower.events]
    assert ids == sorted(ids)
    wait_for(lambda: open_streams() == 0)


def test_a_reader_that_comes_back_goes_on_where_it_was(follow, ada, run_worker):
    job_id = submit(probe_actors.steps, owner=f"user:{ada.pk}", kwargs={"total": 4})
    probe_actors.go_on.set()
    whole = follow(job_id)
    with run_worker("default"):
        assert whole.ended()

    for index, event in enumerate(whole.events[:-1]):
        rest = follow(job_id, event["id"])
        assert rest.ended()
        missed = [later for later in whole.events[index + 1 :] if later["id"] != event["id"]]
        assert rest.events == missed
    after_the_end = follow(job_id, whole.events[-1]["id"])
    assert after_the_end.ended()
    assert after_the_end.status == 204


TOO_LARGE = [f"{2**64}-0", f"0-{2**64}", "9" * 20 + "-0", f"{2**64 - 1}-{2**64 - 1}"]


@pytest.mark.parametrize("last", ["", "nonsense", "1", "-", "9" * 400, "1-1\u00e4", *TOO_LARGE])
def test_a_job_that_ended_is_told_at_once(follow, own_job, last):
    request_cancel(own_job)

    follower = follow(own_job, last)

    assert follower.ended()
    assert follower.names() == ["state", "end"]
    assert {event["data"]["state"] for event in follower.events} == {"cancelled"}


def test_a_silent_job_is_kept_alive_by_comments(follow, own_job, short_heartbeat):
    follower = follow(own_job)

    wait_for(lambda: len(follower.comments) >= 3)
    request_cancel(own_job)

    assert follower.ended()
    assert set(follower.comments) == {": heartbeat"}


@pytest.mark.parametrize(
    ("scope", "lost"),
    [("read", {"revoked_at": "2026-01-01T00:00Z"}), ("read", {"is_active": False}), ("operate", {"scopes": ["read"]})],
    ids=["token", "account", "scope"],
)
def test_a_stream_ends_with_the_rights_of_its_token(web, ada, headers, short_heartbeat, valkey, scope, lost):
    """Also while events come all the time."""
    job_id = submit(probe_actors.add, owner=f"user:{ada.pk if scope == 'read' else 0}", kwargs={"a": 1, "b": 2})
    follower = Follower(f"{web}/api/v1/jobs/{job_id}/events", headers(scope))
    wait_for(lambda: len(follower.comments) >= 3)
    went_on = not follower.closed

    (User if "is_active" in lost else Token).objects.update(**lost)
    wait_for(lambda: report_progress(valkey, job_id, 1) or follower.closed)

    assert went_on and "end" not in follower.names()


def test_a_job_whose_events_are_gone_still_comes_to_its_end(follow, own_job, valkey, short_heartbeat):
    follower = follow(own_job)

    with valkey.pipeline(transaction=True) as together:
        keys = facilities().records.keys.queue("default")
        together.hset(keys.ended_bucket(1), own_job, encode(EndedJob(own_job, "succeeded", attempt=1)))
        together.hset(keys.ended, mapping={"first": 1, "last": 1})
        together.delete(facilities().records.stream_key(own_job, "default"))
        together.execute()

    assert follower.ended()
    assert follower.names()[-2:] == ["state", "end"]


def test_a_stream_outlives_the_connection_to_the_broker(follow, own_job, valkey):
    follower = follow(own_job)
    for number in range(3):
        valkey.client_kill_filter(skipme=True)
        report_progress(valkey, own_job, number)

    request_cancel(own_job)

    assert follower.ended()
    assert [event["data"]["done"] for event in follower.events if event["event"] == "progress"] == [0, 1, 2]
    assert follower.names()[-1] == "end"
    assert follower.names().count("end") == 1


def test_a_broker_that_is_away_at_a_heartbeat_closes_the_stream_without_an_end(
    follow, own_job, valkey, short_heartbeat
):
    follower = follow(own_job)

    valkey.execute_command("CLIENT", "PAUSE", 4000)

    assert follower.ended()
    assert "end" not in follower.names()


def test_a_reader_that_lags_gets_every_event_in_order(follow, own_job, valkey):
    followers = [follow(own_job) for _ in range(3)]

    for number in range(200):
        report_progress(valkey, own_job, number)
    request_cancel(own_job)

    for follower in followers:
        assert follower.ended()
        progress = [event["data"]["done"] for event in follower.events if event["event"] == "progress"]
        assert progress == list(range(200))


def test_a_token_has_so_many_streams(web, own_job, headers):
    url, bearer = f"{web}/api/v1/jobs/{own_job}/events", headers()
    followers = [Follower(url, bearer) for _ in range(live.STREAMS_PER_CALLER)]
    wait_for(lambda: open_streams() == live.STREAMS_PER_CALLER)

    refused = Follower(url, bearer)

    assert refused.ended()
    told = (refused.status, refused.answer["retry-after"], refused.answer["content-type"])
    assert told == (429, "15", "application/problem+json")
    assert loops_reading() == 1
    another = Follower(url, headers())
    wait_for(lambda: another.events)
    request_cancel(own_job)
    assert all(follower.ended() for follower in followers)
    wait_for(lambda: open_streams() == 0)


def test_readers_that_wait_hold_no_database_connection_and_leave_nothing_behind(knock, own_job):
    before = open_connections()

    for _ in range(4):
        readers = knock(own_job, 25)
        wait_for(lambda: open_streams() == 25)
        wait_for(lambda: loops_reading() == 1)
        assert open_connections() <= before
        for reader in readers:
            reader.close()
        wait_for(lambda: open_streams() == 0, what="the streams to close")
        wait_for(lambda: loops_reading() == 0, what="the reading to end")


def test_a_reader_that_never_reads_is_dropped(knock, own_job, valkey):
    [reader] = knock(own_job, buffer=4096)
    wait_for(loops_reading)
    for number in range(400):
        report_progress(valkey, own_job, number, note="x" * 20_000)

    reader.close()

    wait_for(lambda: loops_reading() == 0, what="the reading to end")


def test_a_key_that_is_no_stream_takes_no_events_from_others(valkey):
    key, wrong = (facilities().records.stream_key(name, "default") for name in ("j", "wrong"))
    report_progress(valkey, "j", 0)
    valkey.xadd(key, {"event": "progress", "data": "{"})
    report_progress(valkey, "j", 1)
    valkey.set(wrong, "x")
    taken: list[int] = []

    async def read() -> None:
        reader, follower = live._Reader(), Watcher(key, "0-0")
        reader._watchers.update({follower, Watcher(wrong, "0-0")})
        await reader.read_once()
        taken.extend([event.data["done"] for event in await follower.next(1)])

    asyncio.run(read())

    assert taken == [0, 1]


@pytest.fixture
def job_id(transactional_db):
    return submit(probe_actors.steps, kwargs={"total": 3})


def test_a_stream_needs_a_session_the_right_and_a_job(web, job_id):
    cases = (job_id, {}, 302), (job_id, session("cancel_job"), 403), (UNKNOWN, session("view_job"), 404)
    for asked, headers, status in cases:
        refused = Follower(web + address_of(asked), headers)

        assert (refused.ended(), refused.status) == (True, status)
    assert open_streams() == 0
    assert staff("view_job").post(address_of(job_id)).status_code == 405


@pytest.mark.parametrize(
    "lose",
    [
        lambda patch: patch.setattr(admin.site, "has_permission", lambda request: False),
        lambda _: User.objects.update(is_staff=False),
        lambda _: User.objects.update(is_active=False),
        lambda _: Permission.objects.get(codename="view_job").user_set.clear(),
    ],
    ids=["second factor", "staff", "account", "right"],
)
def test_a_stream_ends_when_its_user_may_not_see_the_room_any_more(web, job_id, short_heartbeat, monkeypatch, lose):
    follower = Follower(web + address_of(job_id), session("view_job"))
    wait_for(lambda: len(follower.comments) >= 3)
    went_on = not follower.closed

    lose(monkeypatch)

    wait_for(lambda: follower.closed)
    assert went_on and "end" not in follower.names()


def test_a_user_and_a_process_have_so_many_streams(web, job_id, headers, monkeypatch):
    monkeypatch.setattr(live, "STREAMS_PER_CALLER", 2)
    monkeypatch.setattr(live, "STREAMS_PER_PROCESS", 4)
    mia, bo = session("view_job"), session("view_job")
    followers = [Follower(web + address_of(job_id), mia) for _ in range(2)]
    wait_for(lambda: open_streams() == 2)

    third = Follower(web + address_of(job_id), mia)

    assert third.ended()
    assert (third.status, third.answer["retry-after"]) == (429, "15")
    followers.append(Follower(web + address_of(job_id), bo))
    operator = headers("submit", "read", "operate", user=User.objects.create_superuser("operator"))
    followers.append(Follower(f"{web}/api/v1/jobs/{job_id}/events", operator))
    wait_for(lambda: open_streams() == 4)
    fifth = Follower(web + address_of(job_id), bo)
    assert fifth.ended()
    assert (fifth.status, fifth.answer["retry-after"]) == (503, "15")
    request_cancel(job_id)
    assert all(follower.ended() for follower in followers)
    wait_for(lambda: open_streams() == 0)


def test_under_wsgi_a_page_polls_and_its_stream_is_refused_at_once(web, job_id):
    client = staff("view_job")  # Django's test client runs under WSGI
    cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
    page_url = reverse("switchyard-job", args=[job_id])

    refused, page = client.get(address_of(job_id)), client.get(page_url).content.decode()
    under_asgi = urllib3.request("GET", web + page_url, headers=cookie).data.decode()

    assert refused.status_code == 501
    assert open_streams() == 0
    assert "data-events" not in page
    assert f'data-live="{address_of(job_id, part="live")}"' in page
    assert f'data-events="{address_of(job_id)}"' in under_asgi


@pytest.mark.parametrize("part", ["live", "events"])
def test_a_part_of_an_unknown_job_says_so(web, job_id, part, monkeypatch):
    reader = session("view_job")

    def away(job_id: str) -> None:
        raise BrokerUnavailable("HMGET", "a test")

    def status(job_id: str) -> int:
        url = web + address_of(job_id, part=part)
        return urllib3.request("GET", url, headers=reader, timeout=30, retries=False).status

    found = [status(UNKNOWN)]
    monkeypatch.setattr(views, "passport_of", away)
    monkeypatch.setattr(views, "find_known", away)

    assert [*found, status(job_id)] == [404, 503]
