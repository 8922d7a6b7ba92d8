"""Stores of results as the project makes them, with the longest time that a job waited for them."""

from __future__ import annotations

import time

from switchyard.broker.stores.result_stores import ResultStores
from switchyard.files.addresses import StorageAddress, results_of
from switchyard.jobs.results import result_stores


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
