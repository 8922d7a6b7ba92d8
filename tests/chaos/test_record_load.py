"""F74: jobs at the highest rate that holds from send to end. Records keep to their budget, no row is lost uncounted."""

import threading
import time

import dramatiq
import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import HistoryStreams, decode_rows
from switchyard.broker.stores.job_records import RecordLimits
from tests.factories.yards import small_yard
from tests.waiting import wait_for

SECONDS = 300
MEBIBYTE = 1024 * 1024
LIMITS = RecordLimits(records_bytes=MEBIBYTE, history_bytes=MEBIBYTE)
MOST_WAITING = 5_000
BYTES_A_MESSAGE = 700
# Of every job that has ended, outside of the budgets: they are kept for longer than this runs.
FINISHED_ID_BYTES = 70
# A server that grows its tables holds the old one meanwhile; lists and leases come on top.
SLACK_BYTES = 8 * MEBIBYTE


class Reader(threading.Thread):
    """Takes rows out of the stream, as the history writer does, until it is told that its database is away."""

    def __init__(self, broker: RedisBroker) -> None:
        super().__init__(daemon=True)
        records = facilities(broker).records
        self.streams = HistoryStreams(records.calls, broker.keys, records.queues)
        self.away, self.ended = threading.Event(), threading.Event()
        self.ids: set[str] = set()

    def run(self) -> None:
        while not self.ended.is_set():
            if self.away.is_set() or not self.read():
                self.ended.wait(0.02)

    def read(self) -> int:
        entries = self.streams.read(limit=100)
        self.ids.update(row.id for entry in entries for row in decode_rows(entry.rows))
        self.streams.remove(entries, written=sum(entry.count for entry in entries), skipped=0)
        return len(entries)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_records_and_history_keep_to_their_budgets_under_the_highest_load(yard_broker, run_worker, valkey):
    broker = yard_broker(small_yard(), limits=LIMITS)
    family, keys = broker.families["work"], broker.keys.queue("work")
    ran: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def tiny(note: str) -> None:
        ran.append(note)

    waits = [tiny.send_with_options(args=("later",), delay=3_600_000).message_id for _ in range(100)]
    reader, sent, used = Reader(broker), [], []
    before = valkey.info("memory")["used_memory"]
    reader.start()
    began_s = time.monotonic()
    with run_worker(broker=broker, threads=4):
        while (now_s := time.monotonic() - began_s) < SECONDS:
            if now_s > SECONDS / 2:
                reader.away.set()
            if family.calls.command("HLEN", keys.bodies) < MOST_WAITING:
                messages = [tiny.message("x" * 100) for _ in range(250)]
                sent += [message.message_id for message in broker.enqueue_many(messages)]
            else:
                reader.ended.wait(0.01)
            used.append(valkey.info("memory")["used_memory"] - before)
        wait_for(lambda: len(ran) == len(sent), 120, what="every job to run")
        per_s = len(sent) / (time.monotonic() - began_s)
    reader.ended.set()
    reader.join()
    while reader.read():
        pass

    figures = {name.decode(): int(value) for name, value in valkey.hgetall(keys.ended).items()}
    dropped = figures.get("dropped", 0)
    print(f"{len(sent)} jobs, {per_s:,.0f}/s, {dropped} rows dropped, at most {max(used) / MEBIBYTE:.1f} MiB more")
    assert len(reader.ids & set(sent)) + dropped == len(sent)
    assert dropped > 0
    assert figures["bytes"] <= MEBIBYTE
    assert set(facilities(broker).records.states(waits)) == {"scheduled"}
    budgets = 2 * 1.35 * MEBIBYTE
    outside = MOST_WAITING * BYTES_A_MESSAGE + len(sent) * FINISHED_ID_BYTES
    assert max(used) < budgets + outside + SLACK_BYTES
