"""Choice of the result stores by ``SWITCHYARD_RESULTS_URL``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.utils.module_loading import import_string

from switchyard.broker.stores.result_stores import ResultStore, ResultStores
from switchyard.files.addresses import ResultsAddress
from switchyard.jobs.result_stores.database import DatabaseResults
from switchyard.jobs.result_stores.files import BucketResults, LargeResults


def result_stores(address: ResultsAddress) -> ResultStores:
    """Return the stores for an address. Large results go to the project's storage, or to the database without it."""
    makers: dict[str, Callable[[], ResultStore]] = {"storage": LargeResults, "database": DatabaseResults}
    if address.bucket is not None:
        makers[address.kind] = partial(BucketResults, address.bucket)
    elif address.kind == "class":
        makers["class"] = lambda: import_string(address.path)()
    first = "" if address.kind == "broker" else address.kind
    return ResultStores(makers, first=first, large=("storage", "database"))
