"""Retention by age on a disk and on S3: what leaves, what stays, and a kill at every step."""

import io
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection
from django.utils import timezone

from apps.billing.models import EventState, PaymentEvent
from apps.exports.models import Dataset, Export, Format
from apps.images.models import Picture, Thumbnail, ThumbnailState
from apps.mail.models import MailState, SentMail, Template
from apps.reports.models import Report
from apps.retention import services
from apps.retention.listing import files_below
from apps.retention.models import FileRemoval, KindState
from switchyard.jobs.results import save_file
from tests.factories.shop import make_customer

pytestmark = [pytest.mark.django_db]
ALL = {"pictures": 90, "reports": 90, "exports": 90, "results": 90, "mails": 90, "payment_events": 90}
OLD, NEW = timedelta(days=91), timedelta(days=89)


@pytest.fixture(params=["disk", "s3"])
def storage(request, settings, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("on_s3")
    else:
        settings.MEDIA_ROOT = str(tmp_path / "media")
    yield request.param


@pytest.fixture
def aged(monkeypatch):
    """Give files of the storage an age: S3 sets the time of an upload itself, so the listing is answered for."""
    ages: dict[str, timedelta] = {}
    listed = services.files_below

    def answered(*args: Any, **options: Any) -> Iterator[Any]:
        for found in listed(*args, **options):
            yield replace(found, modified_at=found.modified_at - ages.get(found.name, timedelta(0)))

    def age(name: str, by: timedelta) -> str:
        ages[name] = by
        return name

    monkeypatch.setattr(services, "files_below", answered)
    return age


def run(number: int) -> None:
    assert services.work(number, for_s=60)


def stored() -> set[str]:
    return {found.name for folder in ("results", "pictures") for found in files_below(storages["default"], folder)}


def make_export(age: timedelta) -> Export:
    described = save_file("a.csv", b"12345", "text/csv")
    return Export.objects.create(
        job_id=described["file"][:40], dataset=Dataset.INVOICES, format=Format.CSV, row_count=1,
        created_at=timezone.now() - age, **described,
    )  # fmt: skip


def make_report(age: timedelta) -> Report:
    described = save_file("a.pdf", b"1234567", "application/pdf")
    return Report.objects.create(
        customer=make_customer(), month="2026-01", checksum="x", generated_at=timezone.now() - age, **described
    )


def make_picture(age: timedelta) -> Picture:
    picture = Picture.objects.create(owner_key="user:1", size_bytes=3, created_at=timezone.now() - age)
    picture.file.save("picture", ContentFile(b"abc"))
    described = {**save_file("t.png", b"1234", "image/png"), "width": 1, "height": 1}
    Thumbnail.objects.create(picture=picture, width=1, height=1, state=ThumbnailState.MADE, result=described)
    Thumbnail.objects.create(picture=picture, width=2, height=2)
    return picture


def make_rows(age: timedelta) -> None:
    at = timezone.now() - age
    for state in MailState.values:
        key = f"{state} {age}"
        SentMail.objects.create(key=key, job_id="j", template=Template.WELCOME, to="a@b.example", state=state)
        SentMail.objects.filter(key=key).update(created_at=at)
    for state in EventState.values:
        PaymentEvent.objects.create(external_id=f"{state} {age}", payload={}, state=state, received_at=at)


def test_old_rows_leave_and_the_rest_is_counted(storage, settings, aged):
    settings.RETENTION_DAYS = ALL
    for age in (OLD, NEW):
        make_export(age), make_report(age), make_picture(age), make_rows(age)
    result = save_file("large.json", b"{}", "application/json")["file"]
    gone = aged(save_file("large.json", b"{}", "application/json")["file"], OLD)
    lost = aged(storages["default"].save("pictures/2026/01/upload-without-a-row", ContentFile(b"x")), OLD)
    for name in stored() - {gone, lost}:
        if name != result:
            aged(name, OLD)  # a file is as old as its row at least: one that a row names stays with its row

    run(1)

    picture, export, report = Picture.objects.get(), Export.objects.get(), Report.objects.get()
    thumbnail = Thumbnail.objects.get(state=ThumbnailState.MADE)
    assert stored() == {picture.file.name, thumbnail.result["file"], export.file, report.file, result}
    assert sorted(SentMail.objects.values_list("state", flat=True)) == ["claimed", "claimed", "refused", "sent"]
    events = sorted(PaymentEvent.objects.values_list("state", flat=True))
    assert events == ["applied", *["received"] * 2, *["unplaced"] * 2]
    found = {state.name: (state.count, state.size_bytes, state.removed) for state in KindState.objects.all()}
    assert found == {
        "pictures": (1, 7, 2), "exports": (1, 5, 1), "reports": (1, 7, 1), "results": (1, 2, 1),
        "mails": (4, None, 2), "payment_events": (5, None, 1),
    }  # fmt: skip
    assert not FileRemoval.objects.exists()
    assert KindState.objects.get(name="exports").oldest_at == export.created_at


def test_nothing_leaves_by_default_and_everything_is_counted(storage, settings):
    settings.RETENTION_DAYS = {}
    make_export(OLD * 40), make_rows(OLD * 40)
    save_file("large.json", b"{}", "application/json")

    run(1)
    run(2)

    assert (Export.objects.count(), SentMail.objects.count(), len(stored())) == (1, 3, 2)
    states = KindState.objects.filter(name__in=("exports", "results")).values_list("count", "size_bytes", "removed")
    assert sorted(states) == [(1, 2, 0), (1, 5, 0)]


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stride", [37, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_kill_at_any_step_leaves_no_row_without_file_and_no_file_without_name(
    storage, stride, settings, aged, monkeypatch
):
    settings.RETENTION_DAYS = {"pictures": 90, "exports": 90, "results": 90}
    monkeypatch.setattr(services, "BATCH", 2)
    monkeypatch.setattr(services, "PAGE", 2)
    point, left = 0, 0
    while left <= 0:
        point += stride
        left = point
        for age in (OLD, OLD, NEW):
            make_export(age), make_picture(age)
        aged(save_file("large.json", b"{}", "application/json")["file"], OLD)

        def kill(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return execute(sql, params, many, context)

        try:
            with connection.execute_wrapper(kill):
                run(2 * point)
        except Killed:
            assert named() <= stored(), f"killed at query {point}: a row without its file"
        run(2 * point + 1)
        assert not FileRemoval.objects.exists()
        assert stored() == named(), f"killed at query {point}: a file without its row"
        assert Export.objects.count() == Picture.objects.count() == 1
        Export.objects.all().delete(), Picture.objects.all().delete()
        for name in stored():
            storages["default"].delete(name)
    assert point > 50


def named() -> set[str]:
    """Return the files that rows name."""
    thumbnails = Thumbnail.objects.filter(result__isnull=False).values_list("result", flat=True)
    rows = (*Export.objects.values_list("file", flat=True), *Picture.objects.values_list("file", flat=True))
    return {*rows, *(result["file"] for result in thumbnails)}


def test_a_storage_away_keeps_names_and_stops_no_other_kind(settings, own_s3_server):
    settings.RETENTION_DAYS = ALL
    settings.STORAGES = {**settings.STORAGES, "default": own_s3_server.bucket().entry}
    gone = make_export(OLD).file
    make_rows(OLD)

    own_s3_server.stop()
    with pytest.raises(OSError, match="the storage did not"):
        services.work(1, for_s=60)

    states = {state.name: state for state in KindState.objects.all()}
    assert [removal.name for removal in FileRemoval.objects.all()] == [gone]
    assert not Export.objects.exists() and "the storage did not remove" in states["exports"].error
    assert (states["mails"].removed, states["mails"].error) == (2, "")


def test_a_run_goes_on_in_a_new_job_and_an_earlier_run_ends(settings, tmp_path):
    settings.MEDIA_ROOT = str(tmp_path / "media")
    settings.RETENTION_DAYS = {"exports": 90}
    for _ in range(3):
        make_export(OLD)

    ended = [services.work(7, for_s=0) for _ in range(12)]

    assert ended[0] is False
    assert ended[-1] is True
    assert not Export.objects.exists()
    make_export(OLD)
    assert services.work(6, for_s=60) is True  # a later one has begun, or ended
    assert Export.objects.count() == 1


def test_a_listing_goes_on_after_any_file(storage):
    names = sorted(f"results/2026/{month}/{folder}/a.txt" for month in ("01", "02") for folder in ("a", "a-b", "b"))
    for name in names:
        storages["default"].save(name, ContentFile(b"x"))
    everything = [found.name for found in files_below(storages["default"], "results")]

    rests = [[found.name for found in files_below(storages["default"], "results", after=name)] for name in everything]

    assert sorted(everything) == names
    assert rests == [everything[number + 1 :] for number in range(len(everything))]
    storages["default"].delete(everything[2])
    assert [found.name for found in files_below(storages["default"], "results", after=everything[2])] == everything[3:]


def test_an_emptied_folder_of_a_result_leaves_a_disk(settings, tmp_path):
    settings.MEDIA_ROOT = str(tmp_path / "media")
    settings.RETENTION_DAYS = {"results": 1}
    name = save_file("a.txt", io.BytesIO(b"").getvalue(), "text/plain")["file"]
    path = tmp_path / "media" / name
    part = path.with_name(".left-by-a-kill.part")
    part.touch()
    for file in (path, part):
        os.utime(file, (time.time() - 90_000,) * 2)

    run(1)

    assert not path.parent.exists()
    assert path.parent.parent.exists()
