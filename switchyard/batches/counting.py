"""The scheduler's part of batches: it counts the ends that queues have noted, calls back, and looks for what is lost.

Killed between any two steps, the next call repeats them: a note is dropped after its batch has counted it and its
callbacks are sent, a callback has an id that follows from its batch, and a batch that has not ended is looked at every
minute.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import dramatiq
import msgspec
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.stores.batches import AT_ONCE, TTL_MS, Batches, BatchRecord, Counted, Outcome, batch_of
from switchyard.broker.stores.job_records import ENDED
from switchyard.history.models import JobRow
from switchyard.loggers import get_logger
from switchyard.middleware.callbacks import REFUSALS
from switchyard.outbox.rows import waiting_ids

log = get_logger(__name__)

LOOK_MS: Final = 60_000
LOOKED_AT_ONCE: Final = 20
# Without a change for so long, open members are looked for: their sender may have been killed before it sent them. More
# than a transaction takes, less than the ten minutes for which a finished id is remembered at least.
LOST_AFTER_MS: Final = 540_000
# A batch that is still being made adds a member more often than that.
ABANDONED_AFTER_MS: Final = 3_600_000
OUTCOMES: Final[dict[str, Outcome]] = {"succeeded": "done", "cancelled": "cancelled"}


def count_batches() -> int:
    """Count what queues have noted, then look at batches whose time has come; return the number of counted ends.

    Raises:
        BrokerError: the broker did not answer, or the server or a key of one queue or batch; what is left is counted by
            the next call, the others are.
        django.db.DatabaseError: the database did not answer.
    """
    store = facilities().batches
    if store is None:
        return 0
    noted, failed = store.noted(facilities().records.queues)
    counted = 0
    for queue in noted:
        try:
            counted += _count_queue(store, queue)
        except BrokerError as error:  # the server of a queue, or of a batch, must not hold up the others
            failed = error
    for batch_id in store.to_look_at(LOOKED_AT_ONCE):
        store.look_again(batch_id, LOOK_MS)
        try:
            look_at(store, batch_id)
        except BrokerError as error:
            failed = error
    if failed is not None:
        raise failed
    return counted


def _count_queue(store: Batches, queue: str) -> int:
    records, counted, away = facilities().records, 0, dict[str, BrokerError]()
    for ends in store.ends(queue):
        by_batch, done = defaultdict[str, dict[bytes, bytes]](dict), dict[bytes, bytes]()
        for id_, outcome in ends.items():
            by_batch[batch_of(str(id_, "ascii", "replace"))][id_] = outcome
        for batch_id, found in by_batch.items():
            try:
                place = records.calls.place_of(records.keys.batch(batch_id))
                if place not in away:  # each server that is away is waited for once
                    _count_ends(store, batch_id, found)
                    done |= found
            except BrokerError as error:
                away[place if isinstance(error, BrokerUnavailable) else batch_id] = error
        store.drop_ends(queue, done)
        counted += len(done)
    if away:
        raise next(iter(away.values()))
    return counted


def _count_ends(store: Batches, batch_id: str, ends: Mapping[bytes, bytes]) -> None:
    found: Any = [(str(id_, "ascii", "replace"), str(outcome, "ascii", "replace")) for id_, outcome in ends.items()]
    figures = store.count(batch_id, found)
    if figures is not None and not call_back(store, batch_id, figures):
        store.look_again(batch_id, LOOK_MS)


def call_back(store: Batches, batch_id: str, figures: Counted) -> bool:
    """Send the callbacks that are due; ``False`` when one was refused, which is tried again every minute."""
    if not figures.due:
        return True
    [record] = store.read([batch_id])
    sent = [_is_sent(store, record, name) for name in figures.due if record is not None]
    return all(sent)


def _is_sent(store: Batches, record: BatchRecord, name: str) -> bool:
    broker: Any = dramatiq.get_broker()
    try:
        fields = msgspec.json.decode(record.callbacks[name])
        callback: Message[Any] = Message(**{**fields, "args": tuple(fields["args"])})
        broker.declare_queue(callback.queue_name)  # one of newer code, whose workers consume it
        with limits_lifted():
            broker.enqueue(callback)
    except (*REFUSALS, BrokerError) as error:
        log.error("callback of a batch refused", batch=record.id, name=record.name, callback=name, error=str(error))
        return False
    store.note(record.id, f"sent:{name}")
    log.info("callback of a batch sent", batch=record.id, name=record.name, callback=name, job_id=callback.message_id)
    return True


def look_at(store: Batches, batch_id: str, *, lost_after_ms: int = LOST_AFTER_MS) -> None:
    """Go on with a batch whose maker, or the scheduler itself, was killed before its next step."""
    [record] = store.read([batch_id])
    figures = None if record is None else store.count(batch_id)
    if record is None or figures is None:
        if store.age_ms(batch_id) > ABANDONED_AFTER_MS:  # else its first member may come yet
            store.forget(batch_id)
        return
    if call_back(store, batch_id, figures) and figures.state != "open":
        store.look_no_more(batch_id)
        return
    unchanged_ms = now_ms() - record.changed_at
    if figures.open and unchanged_ms >= lost_after_ms:
        _settle_lost(store, record)
    elif not figures.open and not record.closed_at and unchanged_ms >= ABANDONED_AFTER_MS:
        log.warning("batch closed, nobody added a member for an hour", batch=batch_id, name=record.name)
        store.note(batch_id, "abandoned", "closed")
        store.look_again(batch_id, 0)


def _settle_lost(store: Batches, record: BatchRecord) -> None:
    """End the open members that are nowhere, or whose end was not noted; forget a batch of which none was ever sent."""
    store.look_again(record.id, LOST_AFTER_MS)
    found, cursor = dict[str, Outcome | None](), ""
    members = set[str]()
    while cursor != "0":
        page, cursor = store.members(record.id, "open", cursor=cursor or "0")
        members |= page.keys()
        found |= ends_of(page)
    lost = [id_ for id_, outcome in found.items() if outcome is None]
    if len(lost) == len(members) == record.total:
        log.info("batch forgotten, no member of it was sent", batch=record.id, name=record.name, members=len(lost))
        store.forget(record.id)
        return
    if not found:
        return
    log.warning("members of a batch ended unseen", batch=record.id, name=record.name, ended=len(found), lost=len(lost))
    ends: list[tuple[str, Outcome]] = [(id_, outcome or "failed") for id_, outcome in found.items()]
    for start in range(0, len(ends), AT_ONCE):
        store.count(record.id, ends[start : start + AT_ONCE])
    store.look_again(record.id, 0)


def forget_expired() -> None:
    """Take batches that have expired off the list; after a ``BrokerError`` the next call goes on."""
    store, before = facilities().batches, now_ms() - TTL_MS
    while store is not None and (page := store.newest(before=before, limit=AT_ONCE)):
        ids = [batch_id for batch_id, _ in page]
        for batch_id, record in zip(ids, store.read(ids), strict=True):
            if record is None:
                store.forget(batch_id)
        before = page[-1][1]


def ends_of(members: Mapping[str, str]) -> dict[str, Outcome | None]:
    """Return how those of some members, each with its queue, ended that have; ``None`` for one that is nowhere.

    A message is looked for in the outbox, its queue, the other queues and the history: in the order in which it moves,
    so that one that moves meanwhile is found.
    """
    records = facilities().records
    waiting = waiting_ids(list(members))
    states: dict[str, str | None] = dict.fromkeys(waiting, "scheduled")
    by_queue: defaultdict[str, list[str]] = defaultdict(list)
    for id_ in members.keys() - waiting:
        by_queue[members[id_]].append(id_)
    for queue, ids in by_queue.items():
        states |= zip(ids, records.states(ids, queues=(queue,) if queue in records.queues else ()), strict=True)
    missing = [id_ for id_, state in states.items() if state is None]
    states |= zip(missing, records.states(missing), strict=True)
    missing = [id_ for id_ in missing if states[id_] is None]
    states |= JobRow.objects.filter(job_id__in=missing).values_list("job_id", "state")
    ended = {id_: state for id_, state in states.items() if state is None or state in ENDED}
    return {id_: None if state is None else OUTCOMES.get(state, "failed") for id_, state in ended.items()}
