"""Results and products' files in each store, from the request to the download, and while a store is stopped."""

import contextlib
import hashlib
import io
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dramatiq
import pytest
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.db.utils import ConnectionHandler
from django.urls import reverse
from PIL import Image

from apps.exports import services as exports
from apps.exports.models import Export
from apps.images.models import Thumbnail
from project import database
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.result_stores import LARGE_BYTES, ResultStores
from switchyard.files.addresses import ResultsAddress, StorageAddress, address_of, results_of
from switchyard.history.writer import HistoryWriter
from switchyard.jobs.models import StoredResult
from switchyard.jobs.queries import find_known
from switchyard.jobs.results import result_stores
from switchyard.operations.findings.disk import STORAGE, look_at_results, look_at_storage
from switchyard.operations.findings.examine import run_checks
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.postgres import PostgresUnderTest
from tests.factories.callers import Caller
from tests.factories.pictures import encode, gradient
from tests.factories.s3 import S3Server
from tests.factories.shop import make_customer, make_invoice
from tests.factories.web import download
from tests.factories.yards import small_yard
from tests.table_locks import writes_held
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True)]
WAIT_MS = 60_000


@pytest.fixture(params=["broker:", "database:", "s3:"])
def stores(request, media):
    if request.param == "s3:":
        return stores_at(url_of(request.getfixturevalue("s3_server").bucket()))
    return stores_at(request.param)


def actor_on(broker: RedisBroker) -> Any:
    """Declare an actor whose result has so many characters of two bytes."""
    return dramatiq.actor(
        lambda count: "ä" * count, actor_name="returns", broker=broker, queue_name="work", store_results=True
    )


def test_small_and_large_results_are_found_in_any_store(stores, yard_broker, run_worker):
    broker = yard_broker(small_yard(), results=stores)
    returns = actor_on(broker)

    small, large, none = returns.send(3), returns.send(LARGE_BYTES), returns.send(0)
    with run_worker(broker=broker):
        kept = broker.get_results_backend()
        found = [one.get_result(backend=kept, block=True, timeout=WAIT_MS) for one in (small, large, none)]

    assert ([len(result) for result in found], set(found[1])) == ([3, LARGE_BYTES, 0], {"ä"})
    record = facilities_of(broker).records.read(large.message_id)
    assert record.kept_in


def test_a_result_is_found_after_the_record_has_left_the_broker(stores, yard_broker, run_worker, monkeypatch):
    broker = yard_broker(small_yard(), results=stores)
    for module in ("switchyard.jobs.queries", "switchyard.history.writer"):
        monkeypatch.setattr(f"{module}.facilities", lambda: facilities_of(broker))

    returns = actor_on(broker)
    small, large = returns.send(3), returns.send(LARGE_BYTES)
    records = facilities_of(broker).records
    with run_worker(broker=broker):
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in (small, large)))
    HistoryWriter(poll_s=0.01, pause_s=0.02).step()
    monkeypatch.setattr(type(records), "read", lambda self, job_id: None)

    found = [find_known(one.message_id) for one in (small, large)]

    assert [job.result for job in found if job is not None] == ["ä" * 3, "ä" * LARGE_BYTES]
    StoredResult.objects.update(expires_at="2020-01-01T00:00:00Z")
    if stores.kinds() == {"database"}:  # it keeps a result as long as result_ttl says; the history has the job
        assert [job.result for job in map(find_known, (small.message_id, large.message_id)) if job] == [None, None]


def test_a_large_result_lies_with_the_result_files(media, yard_broker, run_worker):
    stores = stores_at("")
    broker = yard_broker(small_yard(), results=stores)
    returns = actor_on(broker)

    with run_worker(broker=broker):
        sent = returns.send(5 * LARGE_BYTES)
        found = sent.get_result(backend=broker.get_results_backend(), block=True, timeout=WAIT_MS)

    assert (len(found), stores.kinds()) == (5 * LARGE_BYTES, {"storage"})
    assert len(list(media.rglob("*.json"))) == 1


def test_expired_rows_leave_the_database_and_are_not_found():
    stores = result_stores(results_of("TEST", "database:"))
    StoredResult.objects.create(job_id="old", text="1", expires_at="2020-01-01T00:00:00Z")

    assert stores.load("old", "database:") is None
    assert stores.keep("new", "2") == "database:"

    assert list(StoredResult.objects.values_list("job_id", flat=True)) == ["new"]


class TimedStores:
    """Stores of results with the longest time that a job waited for them."""

    def __init__(self, stores: ResultStores) -> None:
        self.stores = stores
        self.limit_bytes = stores.limit_bytes
        self.load, self.prepare = stores.load, stores.prepare
        self.longest_s = 0.0
        self.places: list[str | None] = []

    def keep(self, job_id: str, text: str, *, keep_ms: int = 0) -> str | None:
        began_s = time.monotonic()
        place = self.stores.keep(job_id, text, keep_ms=keep_ms)
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        self.places.append(place)
        return place

    def kinds(self) -> set[str]:
        """Return the names of the stores that were used, "" for records."""
        return {str(place).partition(":")[0] for place in self.places}


def stores_at(url: str) -> TimedStores:
    return TimedStores(result_stores(results_of("TEST", url)))


def url_of(address: StorageAddress, endpoint_url: str = "") -> str:
    """Return the address for results in a bucket, by default at its own endpoint."""
    endpoint_url = endpoint_url or str(address.options["endpoint_url"])
    return f"s3://{address.bucket}/results?endpoint_url={endpoint_url}&region=us-east-1&path_style=1"


# Number of jobs, and the longest time that one may wait for its store: promised are 2 s.
COUNTS = [(100, 10.0), pytest.param(1000, 2.0, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
# As many as a process has threads for one store: all of them may wait for one that hangs.
THREADS = 8


@contextlib.contextmanager
def between(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


@pytest.fixture
def postgres(tmp_path, monkeypatch):
    """A PostgreSQL with the table of results, which is the default database of threads that begin now."""
    with PostgresUnderTest() as server:
        entry = database.declared(server.url, bounced=False, state_dir=tmp_path)
        handler = ConnectionHandler({"default": entry})
        with handler["default"].schema_editor() as editor:
            editor.create_model(StoredResult)
        handler["default"].close()
        monkeypatch.setitem(connections.settings, "default", handler.settings["default"])
        yield server


@pytest.fixture
def fault(name, request, settings):
    """A fault by its name, a kind of stores and what becomes of the first.

    Yields stores, what stops one for a block, that and what takes over ("": the record), and the least result's bytes.
    """
    kind, what = name.split()
    if name == "database locked":
        yield stores_at("database:"), lambda: writes_held(StoredResult), {"database", ""}, 0
        return
    if kind == "database":
        postgres: PostgresUnderTest = request.getfixturevalue("postgres")
        stopped = partial(between, postgres.stop, postgres.start) if what == "ended" else postgres.standing_still
        yield stores_at("database:"), stopped, {"database", ""}, 0
        return
    server: S3Server = request.getfixturevalue("own_s3_server")
    with FaultProxy(server.port) as proxy:  # the server keeps its objects only as long as it runs
        stopped = partial(between, proxy.refuse, proxy.pass_) if what == "refuses" else server.hanging
        url = url_of(server.bucket(), f"http://{proxy.host}:{proxy.port}")
        if kind == "s3":
            yield stores_at(url), stopped, {"s3", ""}, 0
            return
        settings.STORAGES = {**settings.STORAGES, "default": address_of("TEST", url).entry}
        settings.MEDIA_ROOT = "/nonexistent"
        assert storages["default"].bucket  # the import of its client alone may take longer than a job waits
        yield stores_at(""), stopped, {"storage", "database"}, LARGE_BYTES


@pytest.mark.sqlite
@pytest.mark.parametrize(("jobs", "longest_s"), COUNTS)
@pytest.mark.parametrize(
    "name",
    [
        *("database ended", "database stands-still", "s3 hangs", "storage refuses"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("database locked", "s3 refuses", "storage hangs")),
    ],
)
def test_a_store_that_stops_costs_no_job_and_no_result(fault, name, jobs, longest_s, yard_broker, run_worker):
    stores, stopped, kinds, bytes_each = fault
    broker = yard_broker(small_yard(), results=stores)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(number: int) -> str:
        return f"{number}:".ljust(bytes_each, "x")

    messages = [returns.send(number) for number in range(jobs)]
    records = facilities_of(broker).records
    with run_worker(broker=broker, threads=THREADS), contextlib.ExitStack() as stopping:
        wait_for(lambda: len(stores.places) >= jobs // 5, 60)
        stopping.enter_context(stopped())
        at_stop = len(stores.places)
        wait_for(lambda: len(stores.places) >= at_stop + (jobs - at_stop) // 2, 60)
        stopping.close()
        wait_for(lambda: all((found := records.read(one.message_id)) and found.ended for one in messages), 120)
    places = [str(place).partition(":")[0] for place in stores.places]
    print(f"{name}: {jobs} jobs, longest wait {stores.longest_s:.2f} s, {dict(Counter(places))}")

    assert len(stores.places) == jobs
    assert stores.kinds() >= kinds
    assert stores.longest_s < longest_s
    found = [message.get_result(backend=broker.get_results_backend()) for message in messages]
    assert found == [f"{number}:".ljust(bytes_each, "x") for number in range(jobs)]


def ended(caller: Caller, job_ids: list[str]) -> list[dict[str, Any]]:
    jobs = [caller.get(f"/jobs/{job_id}").json() for job_id in job_ids]
    return jobs if all(job["finished_at"] for job in jobs) else []


def test_every_kind_of_file_goes_to_a_bucket_and_comes_back(on_s3, facilities, run_worker):
    customer = make_customer()
    make_invoice()
    caller = Caller()
    picture = SimpleUploadedFile("yard.png", encode(gradient(), "PNG"), "image/png")
    sent = [
        caller.post("/exports", {"dataset": "invoices", "format": "csv"}),
        caller.post("/exports", {"dataset": "invoices", "format": "xlsx"}),
        caller.post("/reports", {"customer_id": customer.pk, "month": "2026-10"}),
        caller.client.post(
            "/api/v1/thumbnails", {"file": picture, "width": "80", "height": "60"}, headers=caller.headers
        ),
    ]

    with run_worker("slow", "images"):
        jobs = wait_for(lambda: ended(caller, [answer.json()["job_id"] for answer in sent]), 30)

    assert [job["state"] for job in jobs] == ["succeeded"] * 4, jobs
    contents = []
    for job in jobs:
        answer, content = download(job["result_url"], caller.headers)
        assert answer.status_code == 200
        assert int(answer["Content-Length"]) == job["result"]["size_bytes"] == len(content)
        assert hashlib.sha256(content).hexdigest() == job["result"]["sha256"]
        contents.append(content)
    assert contents[2].startswith(b"%PDF-")
    assert max(Image.open(io.BytesIO(contents[3])).size) == 80


def test_the_room_downloads_from_buckets_where_a_repeated_export_has_its_file(on_s3, admin_client):
    make_customer(name="Ada")
    first, again = (exports.export("customers", "csv", job_id="j1") for _ in range(2))
    address = reverse("admin:exports_export_download", args=[Export.objects.get().pk])

    answer, content = download(address, cookies=admin_client.cookies)

    assert (first, answer.status_code, b'"Ada"' in content) == (again, 200, True)


def test_links_replace_downloads_through_the_web_where_they_are_on(settings, s3_server, facilities, run_worker):
    settings.STORAGES = {**settings.STORAGES, "default": s3_server.bucket("&link_s=60").entry}
    make_customer(name="Ada")
    caller = Caller()
    job_id = caller.post("/exports", {"dataset": "customers", "format": "csv"}).json()["job_id"]
    with run_worker("slow"):
        (job,) = wait_for(lambda: ended(caller, [job_id]), 30)

    answer, _ = download(job["result_url"], caller.headers)

    assert (answer.status_code, answer["Cache-Control"]) == (302, "no-store")
    with urllib.request.urlopen(answer["Location"]) as file:
        assert b'"Ada"' in file.read()
        assert file.headers["content-disposition"].startswith("attachment")


def test_the_doctor_tells_a_missing_bucket_from_a_server_that_is_away(settings, own_s3_server):
    address = replace(own_s3_server.bucket(), bucket="no-such-bucket")
    settings.STORAGES = {**settings.STORAGES, "default": address.entry}

    (found,) = look_at_storage()

    assert (found.severity, found.code) == ("error", "away")
    assert "the server has no such bucket (NoSuchBucket)" in found.seen
    assert found.next.startswith("make the bucket")


def test_the_doctor_reaches_the_bucket_of_results_as_well(settings, own_s3_server):
    bucket = own_s3_server.bucket()
    settings.STORAGES = {**settings.STORAGES, "default": bucket.entry}
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("s3", bucket))
    same = list(look_at_results())
    timed = replace(bucket, options=bucket.options | {"querystring_expire": 300})
    settings.STORAGES = {**settings.STORAGES, "default": timed.entry}
    same += look_at_results()
    missing = replace(bucket, bucket="no-such-bucket")
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("s3", missing))

    (found,) = look_at_results()

    assert same == [] and found.severity == "warning"
    assert "the server has no such bucket (NoSuchBucket)" in found.seen and "SWITCHYARD_RESULTS_URL" in found.next


def test_missing_credentials_are_told(settings, own_s3_server, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    settings.STORAGES = {**settings.STORAGES, "default": own_s3_server.bucket().entry}

    (found,) = look_at_storage()

    assert "this process has no credentials" in found.seen and "AWS_ACCESS_KEY_ID" in found.cause


@pytest.mark.parametrize(
    ("path", "seen"),
    [("nowhere.Results", "cannot be imported: No module"), ("dataclasses.Field", "has no put and no get")],
)
def test_the_doctor_tells_of_a_class_of_results_that_is_not_there(settings, path, seen):
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("class", path=path))

    (found,) = look_at_results()

    assert found.severity == "warning" and seen in found.seen and "SWITCHYARD_RESULTS_URL" in found.next


def test_a_class_of_results_may_fail_to_import(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_results.py").write_text("BUCKET = {}['BUCKET']")
    monkeypatch.syspath_prepend(tmp_path)
    settings.SWITCHYARD = replace(settings.SWITCHYARD, results=ResultsAddress("class", path="broken_results.Results"))

    (found,) = run_checks(STORAGE, look_at_results, 5.0)

    assert (found.severity, found.code) == ("warning", "no_class")
    assert "broken_results.Results cannot be imported: KeyError: 'BUCKET'" in found.seen


def test_api_room_and_doctor_tell_a_dead_storage(settings, own_s3_server, admin_client):
    settings.STORAGES = {**settings.STORAGES, "default": own_s3_server.bucket().entry}
    make_customer()
    exports.export("customers", "csv", job_id="j1")
    (reached,) = look_at_storage()
    address = reverse("admin:exports_export_download", args=[Export.objects.get().pk])
    picture = SimpleUploadedFile("yard.png", encode(gradient(), "PNG"), "image/png")
    caller = Caller()

    own_s3_server.stop()
    refused = caller.client.post(
        "/api/v1/thumbnails", {"file": picture, "width": "8", "height": "6"}, headers=caller.headers
    )
    page, text = download(address, cookies=admin_client.cookies)
    (away,) = look_at_storage()

    assert (refused.status_code, refused["Content-Type"]) == (503, "application/problem+json")
    assert "the storage does not answer" in refused.json()["detail"] and not Thumbnail.objects.exists()
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert text.startswith(b"The storage does not answer.")
    assert (reached.severity, away.severity, away.code) == ("ok", "error", "away")
    assert "127.0.0.1" not in f"{away.seen} {away.cause}"
