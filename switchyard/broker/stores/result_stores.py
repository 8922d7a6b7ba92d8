"""Stores of results beside the jobs' records: the chosen one, those for large results, and what takes over for each.

A record holds its result, or the place that holds it. A store that fails or is late is left out for some seconds, and
the next one takes over; the record itself is the last.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

from switchyard.broker.errors import ResultStoreUnavailable

logger = logging.getLogger("switchyard.broker")

# Larger results leave the broker's memory where a store for large ones is there.
LARGE_BYTES: Final = 128 * 1024
# As JSON: as much as a message. Records are in the broker's memory, and pages and commands show them whole.
RECORD_LIMIT_BYTES: Final = 1_048_576
STORE_LIMIT_BYTES: Final = 16 * 1_048_576
# A job waits for the end of its hook: for one store at most so long, for all of them together at most the second.
STORE_S: Final = 1.2
WHOLE_S: Final = 1.8
LEFT_OUT_S: Final = 5.0
KEPT_MS: Final = 3_600_000
THREADS: Final = 8  # of each store


class ResultStore(Protocol):
    """Interface of a store. Both methods may raise anything, and may be called from any thread."""

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        """Keep a result, replacing one of the same job, for so long at least.

        Returns what ``get`` needs beside the job's id, or "".
        """

    def get(self, job_id: str, place: str) -> str | None:
        """Return the text of a result, or ``None`` without one."""


Threaded = tuple[ResultStore, ThreadPoolExecutor]


class ResultStores:
    """Choice between stores.

    Args:
        stores: Name and maker of each; it is made in the process that uses it first.
        first: Name of the store for every result; "" keeps results in records.
        large: Names of the stores for results over :data:`LARGE_BYTES`, in order.
        whole_s: Longest wait of one job for all stores together.
    """

    def __init__(
        self,
        stores: Mapping[str, Callable[[], ResultStore]] | None = None,
        *,
        first: str = "",
        large: Sequence[str] = (),
        store_s: float = STORE_S,
        whole_s: float = WHOLE_S,
        left_out_s: float = LEFT_OUT_S,
    ) -> None:
        self._makers = dict(stores or {})
        self._first, self._large = first, tuple(large)
        self._store_s, self._whole_s, self._left_out_s = store_s, whole_s, left_out_s
        self._made: tuple[int, dict[str, Threaded]] | None = None
        self._left_out_until: dict[str, float] = {}

    @property
    def limit_bytes(self) -> int:
        """Bytes of the largest result that may be kept."""
        return STORE_LIMIT_BYTES if self._makers else RECORD_LIMIT_BYTES

    def prepare(self) -> None:
        """Make the store for every result, before the first job waits for that; log one that cannot be made."""
        if self._first:
            try:
                self._store(self._first)
            except Exception as error:  # noqa: BLE001  every client has errors of its own
                logger.error("result store %s cannot be made: %s", self._first, error)

    def keep(self, job_id: str, text: str, *, keep_ms: int = 0) -> str | None:
        """Keep a result apart from its record.

        Returns:
            The place for the record; "" when the record itself is to hold the result; ``None`` when it is too large
            for the record, and no store has accepted it.
        """
        wanted = [self._first] if self._first else []
        wanted += [name for name in self._large if len(text) > LARGE_BYTES and name not in wanted]
        ends_s = time.monotonic() + self._whole_s
        for name in wanted:
            left_s = min(self._store_s, ends_s - time.monotonic())
            if left_s <= 0 or time.monotonic() < self._left_out_until.get(name, 0.0):
                continue
            try:
                place = self._ask(name, left_s, "put", job_id, text, keep_ms=max(keep_ms, KEPT_MS))
            except ResultStoreUnavailable as error:
                logger.warning("result of job %s is kept elsewhere: %s", job_id, error)
                continue
            return f"{name}:{place}"
        return "" if len(text) <= RECORD_LIMIT_BYTES else None

    def load(self, job_id: str, kept_in: str) -> str | None:
        """Return the text of a result from the place that ``keep`` returned; ``None`` when it is no longer kept.

        Raises:
            ResultStoreUnavailable: the store did not answer, or this process knows none of its name.
        """
        name, _, place = kept_in.partition(":")
        if name not in self._makers:
            raise ResultStoreUnavailable(name, "is not configured in this process")
        found: str | None = self._ask(name, self._whole_s, "get", job_id, place)
        return found

    def _ask(self, name: str, wait_s: float, act: str, *args: Any, **options: Any) -> Any:
        asked: Future[Any] | None = None
        try:
            store, executor = self._store(name)
            # A client may be late in many ways; the wait for this thread has one end.
            asked = executor.submit(getattr(store, act), *args, **options)
            answer = asked.result(wait_s)
        except Exception as error:
            if asked is not None:
                asked.cancel()  # unless a thread has begun it
            self._left_out_until[name] = time.monotonic() + self._left_out_s
            late = isinstance(error, TimeoutError)
            fact = f"did not answer {act} within {wait_s:.1f} s" if late else f"failed to {act}: {type(error).__name__}"
            raise ResultStoreUnavailable(name, fact) from error
        self._left_out_until.pop(name, None)
        return answer

    def _store(self, name: str) -> Threaded:
        """Return a store of this process and its threads: one that hangs keeps them, and none of another store's."""
        made, pid = self._made, os.getpid()
        if made is None or made[0] != pid:
            made = self._made = (pid, {})
        if name not in made[1]:
            made[1][name] = (self._makers[name](), ThreadPoolExecutor(THREADS, f"switchyard-results-{name}"))
        return made[1][name]
