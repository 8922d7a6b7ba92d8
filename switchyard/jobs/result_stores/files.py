"""Results as files: in a bucket of their own, or, where they are large, beside the result files."""

from __future__ import annotations

from typing import Any, cast

from django.core.files.base import ContentFile
from django.core.files.storage import storages

from switchyard.files.addresses import StorageAddress
from switchyard.jobs.results import open_result, save_file

FOLDER = "job-results"


class BucketResults:
    """Result store in a bucket: ``job-results/<job id>.json``. A lifecycle rule of the bucket removes what is old."""

    def __init__(self, address: StorageAddress) -> None:
        entry = address.entry
        entry["OPTIONS"]["file_overwrite"] = True
        self._storage = cast(Any, storages.create_storage(entry))
        _ = self._storage.bucket  # loads the client, which takes up to a second, without a request

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        """Write the object of a job, over one that is there."""
        self._storage.save(f"{FOLDER}/{job_id}.json", ContentFile(text.encode()))
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        """Return the text of a job's result, or ``None``."""
        try:
            with self._storage.open(f"{FOLDER}/{job_id}.json") as file:
                return str(file.read(), "utf-8")
        except FileNotFoundError:
            return None


class LargeResults:
    """Result store in the project's storage, under a generated name, with the files of results."""

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        """Write a file and return its name."""
        return str(save_file("result.json", text.encode(), "application/json")["file"])

    def get(self, job_id: str, place: str) -> str | None:
        """Return the text of a result, or ``None``."""
        file = open_result(place)
        if file is None:
            return None
        with file:
            return str(file.read(), "utf-8")
