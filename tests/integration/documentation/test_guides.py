"""Guides whose code runs in real workers: notices, batches, circuits, keys, outbox, threads, and videos by FFmpeg."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from switchyard.batches.services import Batch
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Dependency
from switchyard.conf import declared_yard
from switchyard.jobs.models import DoneOnce
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import submit
from switchyard.middleware.errors import PermanentFailure
from switchyard.workers.checks import check_yard
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import blocks, run_block, shown_app, stand_in, wait_counting
from tests.integration.outbox.conftest import actor_on, waiting
from tests.integration.outbox.conftest import make_broker as make_broker
from tests.processes import is_alive, titles_below, wait_for_end
from tests.waiting import wait_for

HOUR = datetime.now(UTC).hour
NOON, MIDNIGHT = f"Etc/GMT{HOUR - 12:+}", f"Etc/GMT{(HOUR + 12) % 24 - 12:+}"
HOUR_MS = 3_600_000


class Channels(ModuleType):
    """Stand-in for the providers. A channel is down as often as it is told to be."""

    def __init__(self) -> None:
        super().__init__("apps.notices.channels")
        self.calls: list[tuple[str, int, str]] = []
        self.down = Counter[str]()
        self.send = {name: partial(self.call, name) for name in ("mail", "webhook", "push")}

    def call(self, name: str, person_id: int, event_id: int, *, key: str) -> None:
        self.calls.append((name, person_id, key))
        if self.down[name]:
            self.down[name] -= 1
            raise ConnectionError(f"{name} is down")


@pytest.fixture
def shown(yard_broker, transactional_db):
    """The guide's app on a yard that declares its dependency, and retries soon."""
    broker = yard_broker(replace(declared_yard(), dependencies=(Dependency("notices"),), retry_speed=1_000))
    with shown_app("notify-people", broker, channels=Channels()) as app:
        job = facilities(broker).records.read
        yield SimpleNamespace(broker=broker, job=job, **vars(app["actors"]) | vars(app["models"]))


def test_a_channel_that_is_down_repeats_itself_alone(shown, run_worker):
    ada = shown.Person.objects.create(channels=["mail", "webhook", "push"], zone=NOON)
    shown.channels.down["push"] = 2

    with run_worker("default", "default-retry", broker=shown.broker):
        for _ in range(2):  # the second may be a redelivery
            shown.notify.send(ada.pk, 7)
        wait_for(lambda: len(shown.channels.calls) == 5)
        jobs = {key for *_, key in shown.channels.calls}
        wait_for(lambda: [shown.job(id_).state for id_ in jobs] == ["succeeded"] * 3)

    assert Counter(name for name, *_ in shown.channels.calls) == {"mail": 1, "webhook": 1, "push": 3}


def test_a_person_gets_twenty_an_hour_and_another_goes_on(shown, run_worker):
    ada, ben = (shown.Person.objects.create(channels=["mail", "push"], zone=NOON) for _ in range(2))

    with run_worker("default", broker=shown.broker):
        for event in range(12):
            shown.notify.send(ada.pk, event)
        shown.notify.send(ben.pk, 1)
        stats = facilities(shown.broker).transport.stats
        wait_for(lambda: len(shown.channels.calls) == 22 and stats("default").live.scheduled == 4)

    assert Counter(person for _, person, _ in shown.channels.calls) == {ada.pk: 20, ben.pk: 2}


def test_a_night_holds_all_of_a_person_until_the_morning(shown, run_worker):
    ada = shown.Person.objects.create(channels=["mail"], zone=MIDNIGHT)
    ben = shown.Person.objects.create(channels=["mail"], zone=NOON)

    with run_worker("default", broker=shown.broker):
        late = shown.deliver.send("mail", ada.pk, 6).message_id  # sent by day, and held up into the night
        shown.notify.send(ada.pk, 7)
        shown.notify.send(ben.pk, 7)
        stats = facilities(shown.broker).transport.stats
        wait_for(lambda: shown.channels.calls and stats("default").live.scheduled == 2)

    assert [person for _, person, _ in shown.channels.calls] == [ben.pk]
    early = shown.job(str(uuid5(NAMESPACE_URL, f"7/{ada.pk}/mail")))
    assert [(job.reason, job.attempts) for job in (early, shown.job(late))] == [("delay", 0), ("actor_paused", 0)]
    assert 5 * HOUR_MS < early.next_attempt_at - datetime.now(UTC).timestamp() * 1000 < 8 * HOUR_MS


@pytest.mark.parametrize(
    ("now", "quiet_h"),
    [("2026-06-01T05:00+02:00", 2), ("2026-06-01T07:00+02:00", 0), ("2026-06-01T21:59+02:00", 0),
     ("2026-06-01T22:00+02:00", 9), ("2026-10-24T23:00+02:00", 9), ("2026-03-28T23:00+01:00", 7)],
)  # fmt: skip
def test_the_morning_is_that_of_the_persons_clock(shown, monkeypatch, now, quiet_h):
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.fromisoformat(now))

    assert shown.Person(zone="Europe/Zurich").quiet_ms() == quiet_h * HOUR_MS


class Import:
    """The guide's model: what was done."""

    broken: set[int] = set()
    done: list[tuple[Any, ...]] = []

    @classmethod
    def save_row(cls, import_id: int, row: int) -> Any:
        if row in cls.broken:
            raise PermanentFailure("no such row")
        cls.done.append(("row", row))
        return SimpleNamespace(pictures=[f"https://example.org/{row}"] if row % 2 else [])

    @classmethod
    def save_picture(cls, import_id: int, address: str) -> None:
        cls.done.append(("picture", address))

    @classmethod
    def publish(cls, import_id: int) -> None:
        cls.done.append(("published", import_id))

    @classmethod
    def warn(cls, import_id: int, failed: int) -> None:
        cls.done.append(("warned", import_id, failed))


@pytest.fixture
def page(monkeypatch, facilities):
    """Names that the guide's code defines."""
    stand_in(monkeypatch, "apps.catalog.models", Import=Import)
    monkeypatch.setattr(Import, "broken", set())
    monkeypatch.setattr(Import, "done", [])
    return run_block("count-jobs-as-a-batch")


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_import_is_published_once_all_rows_and_pictures_are_there(page, run_worker):
    made = Batch(page["import_all"](7, 6))
    with run_worker("default"):
        wait_counting(lambda: ("published", 7) in Import.done)

    assert Import.done[-1] == ("published", 7)
    assert [kind for kind, *_ in Import.done].count("picture") == 3
    assert (made.progress().state, made.progress().done, made.progress().name) == ("succeeded", 9, "import 7")


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_import_warns_of_a_row_that_failed(page, run_worker):
    Import.broken = {1}
    made = Batch(page["import_all"](8, 2))
    with run_worker("default"):
        wait_counting(lambda: ("warned", 8, 1) in Import.done and made.progress().state == "complete")

    assert ("published", 8) not in Import.done


class Servers(ModuleType):
    """Stand-in for ``requests``: a provider that does not answer, and a host that asks to wait once."""

    def __init__(self) -> None:
        super().__init__("requests")
        self.called: list[str] = []
        self.waits = {"eu"}

    def post(self, url: str, **options: Any) -> Any:
        self.called.append(url)
        raise ConnectionError("no answer")

    def put(self, url: str, **options: Any) -> Any:
        host = url.split("/")[2]
        self.called.append(host)
        status = 429 if host in self.waits else 200
        self.waits.discard(host)
        return SimpleNamespace(status_code=status, headers={"Retry-After": "1"}, raise_for_status=lambda: None)


@pytest.fixture
def circuits(monkeypatch, yard_broker):
    """The guide's dependencies and actors, on a yard of their own."""
    servers = Servers()
    monkeypatch.setitem(sys.modules, "requests", servers)
    dependencies = run_block("break-a-circuit")["DEPENDENCIES"]
    yard = small_yard()
    billing = replace(yard.queues[0], name="billing")
    pools = (replace(yard.pools[0], queues=("billing",)), yard.pools[1])
    broker = yard_broker(replace(yard, queues=(billing,), pools=pools, dependencies=dependencies))
    with the_global_broker(broker):
        names = run_block("break-a-circuit", 1)
        yield SimpleNamespace(broker=broker, servers=servers, charge=names["charge"], sync=names["sync"])


def test_what_waits_calls_no_more_and_others_go_on(circuits, run_worker):
    records = facilities(circuits.broker).records
    charges = [circuits.charge.send(number).message_id for number in range(40)]
    asked, other = circuits.sync.send("eu", 7).message_id, circuits.sync.send("us", 8).message_id

    with run_worker(broker=circuits.broker, threads=1):
        wait_for(lambda: records.states([other]) == ["succeeded"])
        wait_for(lambda: [job.reason for job in map(records.read, charges) if job].count("circuit_open") >= 30)
        wait_for(lambda: records.states([asked]) == ["succeeded"])

    assert circuits.servers.called.count("https://payments.example/charges") <= 15
    assert (job := records.read(asked)) is not None
    assert (circuits.servers.called.count("eu"), job.attempts) == (2, 1)


reminded: list[int] = []


class Account:
    """An account that fails to be saved as often as it is told to."""

    def __init__(self) -> None:
        self.objects = self
        self.balance_cents = self.saved_cents = self.failures = 0

    def select_for_update(self) -> Account:
        return self

    def get(self, pk: int) -> Account:
        self.balance_cents = self.saved_cents
        return self

    def save(self, update_fields: list[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the database went away")
        self.saved_cents = self.balance_cents


@pytest.fixture
def account(monkeypatch):
    """Stand-in for the guide's model."""
    account = Account()
    stand_in(monkeypatch, "apps.bonuses.models", Account=account)
    return account


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_bonus_is_credited_once(facilities, run_worker, account, capsys):
    shown = run_block("do-something-once")["credit_bonus"]
    account.failures = 1  # the first run takes its key back
    arguments = {"account_id": 17, "month": "2026-10", "cents": 500}
    with run_worker("default", "default-retry"):
        jobs = [submit(shown, kwargs=arguments) for _ in range(3)]
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs))

    assert [find_job(id_).state for id_ in jobs] == ["succeeded"] * 3
    assert (account.failures, account.saved_cents) == (0, 500)
    row = DoneOnce.objects.get()
    assert row.job_id in jobs
    run_block("do-something-once", 2)
    assert f"'token': {row.token}" in capsys.readouterr().out


def test_the_guides_unique_actors_keep_replace_and_delay(facilities):
    names = run_block("do-something-once", 1)
    sent = [names["index"].send(7, text).message_id for text in ("old", "new")]
    later = [names["offer_help"].send_with_options(args=(7, items), delay=600_000).message_id for items in (1, 2)]
    names["sync"].send(7)
    reminded = [names["remind"].send(7).message_id for _ in range(2)]

    assert sent[0] == sent[1] and later[0] == later[1] and reminded[0] == reminded[1]
    replaced, scheduled = (facilities.transport.find_message("default", id_) for id_ in (sent[0], later[0]))
    assert replaced is not None and tuple(replaced.args) == (7, "new")
    assert scheduled is not None and tuple(scheduled.args) == (7, 2)
    lane = facilities.transport.stats("default").live
    assert (lane.waiting, lane.scheduled) == (3, 1)


@pytest.fixture
def remind_all(monkeypatch):
    """The guide's function, with an actor that notes whom it reminds."""

    def remind(invoice_id: int) -> None:
        reminded.append(invoice_id)

    stand_in(monkeypatch, "apps.invoicing.actors", remind=dramatiq.actor(remind))
    reminded.clear()
    return run_block("send-many-at-once")["remind_all"]


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_reminders_are_sent_with_the_commit(facilities, run_worker, remind_all):
    invoices = list(range(1_200))  # more than one call to the server
    with transaction.atomic():
        jobs = remind_all(invoices)
        assert find_job(jobs[0]) is None
    with run_worker("default"):
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs[-3:] + jobs[:3]))
        wait_for(lambda: len(reminded) == len(invoices))

    assert sorted(reminded) == invoices
    assert {find_job(id_).state for id_ in jobs} == {"succeeded"}


class Invoice:
    """A model as the page has it, whose rows are groups."""

    class objects:
        @staticmethod
        def create(customer_id: int) -> Group:
            return Group.objects.create(name=f"invoice of {customer_id}")


def test_the_reminder_is_sent_with_its_invoice(make_broker, monkeypatch):
    remind = actor_on(make_broker("outbox"), "remind")
    stand_in(monkeypatch, "apps.invoicing.actors", remind=remind)
    stand_in(monkeypatch, "apps.invoicing.models", Invoice=Invoice)
    names = run_block("send-with-the-transaction", 1)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        names["bill"](1)
        1 / 0  # noqa: B018
    invoice = names["bill"](2)

    assert blocks("send-with-the-transaction")[0].strip() == 'SWITCHYARD = {"SENDS": "outbox"}'
    assert waiting(remind.broker) == [invoice.pk]


class Rows:
    """A model whose rows are refreshed in the database."""

    def __init__(self) -> None:
        self.objects = self
        self.refreshed: list[tuple[int, str]] = []
        self._met = threading.Barrier(4)

    def get(self, pk: int) -> Any:
        def refresh() -> None:
            connection.ensure_connection()
            self._met.wait(30)  # all four threads have theirs open
            self.refreshed.append((pk, threading.current_thread().name))

        return SimpleNamespace(refresh=refresh)


@pytest.fixture
def rows(monkeypatch):
    """Stand-in for the page's model."""
    rows = Rows()
    stand_in(monkeypatch, "apps.catalogue.models", Price=rows)
    return rows


@pytest.fixture
def opened():
    found: list[tuple[str, BaseDatabaseWrapper]] = []

    def note(connection: BaseDatabaseWrapper, **signal: Any) -> None:
        found.append((threading.current_thread().name, connection))

    connection_created.connect(note)
    yield found
    connection_created.disconnect(note)


@pytest.mark.usefixtures("transactional_db")
def test_the_pages_threads_leave_no_connection_open(facilities, run_worker, rows, opened):
    actor = run_block("keep-database-connections")["refresh_prices"]

    with run_worker("default"):
        job = submit(actor, kwargs={"price_ids": list(range(8))})
        ended = wait_for(lambda: (found := find_job(job)) and found.ended and found)
        own = [(name, made) for name, made in opened if name.startswith("ThreadPoolExecutor")]
        still_open = [name for name, made in own if made.connection is not None]

    assert (ended.state, sorted(pk for pk, _ in rows.refreshed)) == ("succeeded", list(range(8)))
    assert {name for name, _ in own} == {name for _, name in rows.refreshed}
    assert (len({name for name, _ in own}), still_open) == (4, [])


PAGE = "convert-videos"
OLD = b"the video before"


@pytest.fixture
def ffmpeg():
    """The program, from ``bin/test``."""
    found = shutil.which("ffmpeg")
    assert found, "ffmpeg is not installed; run: sudo apt install ffmpeg (or bin/test --without ffmpeg)"
    return found


@pytest.fixture
def videos(yard_broker, transactional_db, tmp_path):
    """The guide's app on its queue, with a target that is there; ``limited`` shortens the soft limit."""
    declared = run_block(PAGE, -1)
    yard = replace(small_yard(), queues=(declared["VIDEOS"],), pools=declared["POOLS"])
    assert check_yard(yard) == []
    broker = yard_broker(replace(yard, queues=(replace(declared["VIDEOS"], soft_limit_ms=1_000),)))
    (target := tmp_path / "target.mp4").write_bytes(OLD)
    with shown_app(PAGE, broker) as app:
        job = facilities(broker).records.read
        yield SimpleNamespace(
            broker=broker, job=job, source=tmp_path / "source.mkv", target=target, **vars(app["actors"])
        )


def converting() -> list[int]:
    """Return the FFmpegs below this process."""
    titles = titles_below(os.getpid()).items()
    return [pid for title, pid in titles if " -progress " in title and "--pdeathsig" not in title]


def test_a_video_is_converted_by_ffmpeg_with_its_progress(videos, run_worker, ffmpeg):
    made = ["-f", "lavfi", "-i", "testsrc=duration=2:size=64x64:rate=5", videos.source]
    subprocess.run([ffmpeg, "-v", "error", *made], check=True)

    with run_worker("videos", broker=videos.broker):
        sent = videos.convert_video.send_with_options(
            args=(str(videos.source), str(videos.target), 2), time_limit=60_000
        )
        job = wait_for(lambda: (found := videos.job(sent.message_id)) and found.ended and found)

    assert (job.state, job.progress["total"]) == ("succeeded", 2)
    assert 1 <= job.progress["done"] <= 2
    assert (videos.target.read_bytes()[4:8], list(videos.target.parent.glob(".converting-*"))) == (b"ftyp", [])


def test_the_time_limit_ends_ffmpeg_and_leaves_the_old_video(videos, run_worker, ffmpeg):
    os.mkfifo(videos.source)  # from which nothing ever comes

    with run_worker("videos", broker=videos.broker):
        sent = videos.convert_video.send(str(videos.source), str(videos.target), 2)
        [running] = wait_for(converting)
        wait_for(lambda: (found := videos.job(sent.message_id)) and found.state == "retrying")

    assert not is_alive(running)
    assert videos.job(sent.message_id).error["type"] == "TimeLimitExceeded"
    assert sorted(path.name for path in videos.target.parent.iterdir()) == ["source.mkv", "target.mp4"]
    assert videos.target.read_bytes() == OLD


def test_ffmpeg_ends_with_a_worker_that_is_killed(tmp_path, ffmpeg):
    os.mkfifo(tmp_path / "source.mkv")
    (tmp_path / "target.mp4").write_bytes(OLD)
    code = blocks(PAGE)[0] + "\nconvert(Path('source.mkv'), Path('target.mp4'), print)"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        [running] = wait_for(converting)
        worker.send_signal(signal.SIGKILL)
        wait_for_end(running, 30)
    finally:
        worker.kill()
        worker.wait()

    assert (tmp_path / "target.mp4").read_bytes() == OLD


def test_what_ffmpeg_cannot_read_leaves_the_old_video(videos, ffmpeg):
    videos.source.write_text("no video")

    with pytest.raises(subprocess.CalledProcessError, match="ffmpeg"):
        videos.convert(videos.source, videos.target, lambda done: None)

    assert videos.target.read_bytes() == OLD


def test_a_host_without_it_is_told_what_to_install(videos, monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(FileNotFoundError, match="sudo apt install"):
        videos.convert(videos.source, videos.target, lambda done: None)
