"""Stores of results beside the jobs' records: the database, the project's storage, or a bucket of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast

from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import close_old_connections
from django.utils.module_loading import import_string

from switchyard.broker import clock
from switchyard.broker.stores.result_stores import ResultStore, ResultStores
from switchyard.files.addresses import ResultsAddress, StorageAddress
from switchyard.jobs.results import open_result, save_file

EVERY_S: Final = 60.0
BATCH: Final = 500
FOLDER = "job-results"


def result_stores(address: ResultsAddress) -> ResultStores:
    """Return the stores for ``SWITCHYARD_RESULTS_URL``.

    Large results go to the project's storage, or to the database without it.
    """
    makers: dict[str, Callable[[], ResultStore]] = {"storage": LargeResults, "database": DatabaseResults}
    if address.bucket is not None:
        makers[address.kind] = partial(BucketResults, address.bucket)
    elif address.kind == "class":
        makers["class"] = lambda: import_string(address.path)()
    first = "" if address.kind == "broker" else address.kind
    return ResultStores(makers, first=first, large=("storage", "database"))


class DatabaseResults:
    """Result store in the table ``StoredResult``. Each process removes a batch of expired rows once a minute."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        from switchyard.jobs.models import StoredResult  # models are not loaded yet when the broker is built

        close_old_connections()
        try:
            expires_at = clock.utc_now() + timedelta(milliseconds=keep_ms)
            StoredResult.objects.update_or_create(job_id=job_id, defaults={"text": text, "expires_at": expires_at})
            self._remove_expired()
        finally:
            close_old_connections()
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        from switchyard.jobs.models import StoredResult

        close_old_connections()
        try:
            found = StoredResult.objects.filter(job_id=job_id, expires_at__gt=clock.utc_now())
            text: str | None = found.values_list("text", flat=True).first()
            return text
        finally:
            close_old_connections()

    def _remove_expired(self) -> None:
        from switchyard.jobs.models import StoredResult

        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + EVERY_S
        expired = StoredResult.objects.filter(expires_at__lte=clock.utc_now()).values_list("pk", flat=True)
        StoredResult.objects.filter(pk__in=list(expired[:BATCH])).delete()


class BucketResults:
    """Result store in a bucket: ``job-results/<job id>.json``. A lifecycle rule of the bucket removes what is old."""

    def __init__(self, address: StorageAddress) -> None:
        entry = address.entry
        entry["OPTIONS"]["file_overwrite"] = True
        self._storage = cast(Any, storages.create_storage(entry))
        _ = self._storage.bucket  # loads the client, which takes up to a second, without a request

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        self._storage.save(f"{FOLDER}/{job_id}.json", ContentFile(text.encode()))
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        try:
            with self._storage.open(f"{FOLDER}/{job_id}.json") as file:
                return str(file.read(), "utf-8")
        except FileNotFoundError:
            return None


class LargeResults:
    """Result store in the project's storage, under a generated name, with the files of results."""

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        return str(save_file("result.json", text.encode(), "application/json")["file"])

    def get(self, job_id: str, place: str) -> str | None:
        file = open_result(place)
        if file is None:
            return None
        with file:
            return str(file.read(), "utf-8")
