"""Results of jobs for Dramatiq's ``get_result``, read from the jobs' records."""

from __future__ import annotations

import json
import time
from typing import Any, Final, NoReturn

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.results import ResultBackend, ResultFailure, ResultMissing, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable, ResultNotKept
from switchyard.broker.stores.job_record import Job
from switchyard.broker.stores.job_records import JobRecords

FIRST_PAUSE_S: Final = 0.005
LONGEST_PAUSE_S: Final = 0.25


class RecordResults(ResultBackend):
    """Dramatiq's result backend on the records of jobs. The middleware ``Status`` writes the results.

    ``remedy`` is for jobs that have not ended on a broker that does not run them by itself.
    """

    def __init__(self, records: JobRecords, broker: Broker, *, remedy: str = "") -> None:
        super().__init__()
        self._remedy = remedy
        self._records = records
        self._broker = broker

    def get_result(self, message: Message[Any], *, block: bool = False, timeout: int | None = None) -> Any:
        """Return a job's result; ``None`` of a job that returned nothing.

        Args:
            block: Wait until the job has ended: the record is read after 5 ms, then less often, every 250 ms at last.
            timeout: Milliseconds to wait, 10,000 by default. 0 reads once.

        Raises:
            ResultMissing: the job has not ended, or its result is no longer kept.
            ResultTimeout: the same, after the time.
            ResultFailure: the job failed, was cancelled or expired; with the name and the text of the exception.
            ResultNotKept: its actor keeps no results.
            BrokerUnavailable: the server did not answer; with ``block`` at the end of the time.
            ResultStoreUnavailable: the store that has the result did not answer within 2 s.
        """
        self._refuse_unkept(message)
        until_s = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout) / 1000
        pause_s = FIRST_PAUSE_S
        while True:
            away: BrokerUnavailable | None = None
            try:
                record = self._records.read(message.message_id)
            except BrokerUnavailable as error:
                record, away = None, error
            if record is not None and record.ended:
                return self._result_of(record, message, block=block)
            left_s = until_s - time.monotonic()
            if not block or left_s <= 0:
                if away is not None:
                    raise away
                raise self._not_ended(message, timeout=timeout, block=block)
            time.sleep(min(pause_s, left_s))
            pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)

    def _not_ended(self, message: Message[Any], *, timeout: int | None, block: bool) -> ResultMissing | ResultTimeout:
        job = f"actor {message.actor_name}: job {message.message_id} has not ended, or its record is no longer kept"
        if not block:
            wait = "wait for it with get_result(block=True, timeout=10_000), in milliseconds"
            return ResultMissing(f"{job}; {self._remedy or wait}")
        waited_ms = DEFAULT_TIMEOUT if timeout is None else timeout
        look = f"see manage.py switchyard jobs show {message.message_id}"
        return ResultTimeout(f"{job}, after {waited_ms} ms; {self._remedy or look}")

    def _result_of(self, record: Job, message: Message[Any], *, block: bool) -> Any:
        ttl_ms = self._option(message, "result_ttl")
        too_old = type(ttl_ms) is int and now_ms() > (record.finished_at or now_ms()) + ttl_ms
        if not too_old and record.kept_in and record.error is None:
            return self._stored(record, message, block=block)
        if too_old or (record.result is None and record.error is None and not self._kept(record, message)):
            raise _no_longer_kept(message, block=block)
        if record.error is not None:
            _fail(record.error["type"], record.error["message"])
        if record.state == "cancelled" and record.reason == "skipped":  # as Dramatiq stores it
            return None
        if record.state != "succeeded":
            _fail(record.state.capitalize(), f"the job is {record.state}")
        return record.result

    def _stored(self, record: Job, message: Message[Any], *, block: bool) -> Any:
        text = self._records.results.load(record.id, record.kept_in)
        if text is None:
            raise _no_longer_kept(message, block=block)
        return json.loads(text)

    def _kept(self, record: Job, message: Message[Any]) -> bool:
        """Return whether a result that is ``None`` was kept: its actor may be unknown here."""
        if message.actor_name in self._broker.actors or record.state != "succeeded":
            return True
        return record.options.get("store_results") is True

    def _refuse_unkept(self, message: Message[Any]) -> None:
        name = message.actor_name
        if name not in self._broker.actors:
            return
        if self._option(message, "store_results") is not True:
            fact = "keeps no results, store_results is not set"
            raise ResultNotKept(name, fact, "declare it with @dramatiq.actor(store_results=True)")
        if self._option(message, "track") is False:
            raise ResultNotKept(name, "keeps no record, track is False", "leave out track: the result is in the record")

    def _option(self, message: Message[Any], name: str) -> Any:
        value = message.options.get(name)
        actor = self._broker.actors.get(message.actor_name)
        return actor.options.get(name) if value is None and actor is not None else value


def _no_longer_kept(message: Message[Any], *, block: bool) -> ResultMissing | ResultTimeout:
    job = f"actor {message.actor_name}: the result of job {message.message_id} is no longer kept"
    return (ResultTimeout if block else ResultMissing)(f"{job}; a longer result_ttl keeps it longer")


def _fail(kind: str, text: str) -> NoReturn:
    raise ResultFailure(f"actor raised {kind}: {text}", kind, text)
