"""The name of every key that Switchyard writes, one function for each.

Times are in milliseconds since the epoch, by the server's clock.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

Lane = Literal["live", "retry", "alone"]
# Lanes that pools serve; the isolated lane beside them holds messages that may take their worker down.
LANES: Final[tuple[Lane, Lane]] = ("live", "retry")
ALL_LANES: Final[tuple[Lane, Lane, Lane]] = (*LANES, "alone")


def _key(name: str) -> str:
    """Return a property with this name below the base of a family. What is in the key stands below the declaration."""
    return property(lambda self: f"{self.base}{name}")  # type: ignore[return-value]


def _queue_key(suffix: str) -> str:
    """Return a property of a family: the name of its queue with a suffix."""
    return property(lambda self: f"{self.base}{self.queue}{suffix}")  # type: ignore[return-value]


def _lane_key(suffix: str) -> Callable[[Any, Lane], str]:
    """Return a method of a family: the name of a lane with a suffix."""
    return lambda self, lane: f"{self.base}{self.lane_name(lane)}{suffix}"


def _shared_key(name: str) -> Callable[[Any], str]:
    """Return a method for a key that belongs to no family."""
    return lambda self: f"{self.prefix}:{name}"


class QueueKeys(msgspec.Struct, frozen=True):
    """Key names of a family. ``docs/reference/keys.md`` is made from the docstrings.

    Args:
        base: Everything before the family's own part: ``<prefix>:{<queue>}:``, in a slot group
            ``<prefix>:{<group>}:queue:<queue>:``.
        queue: Name of the queue, without ``-retry`` or ``-dead``.
    """

    base: str
    queue: str

    def lane_name(self, lane: Lane) -> str:
        """Name of a lane in actors and messages: ``webhook``, ``webhook-retry``, ``webhook-alone``."""
        return self.queue if lane == "live" else f"{self.queue}-{lane}"

    bodies = _key("bodies")
    """Hash: id of a waiting, scheduled or leased message -> its body."""

    def waiting(self, lane: Lane) -> tuple[str, str, str]:
        """Lists: ids of the waiting messages of a lane, next one first, of high, normal and low priority."""
        name = f"{self.base}{self.lane_name(lane)}"
        return f"{name}.high", name, f"{name}.low"

    due = _lane_key(".due")
    """Sorted set: id of a scheduled message of a lane -> due time."""

    parked = _lane_key(".parked")
    """Sorted set: index of the parked messages of a lane, whose actor or arguments no worker knew.

    A member is the message's call (JSON: actor, number of positional arguments, names of the others), a line break
    and its id; all scores are 0. Workers that know the call find their messages here. The messages are also in the
    scheduled ones, so this key may be lost. Expires 20 minutes after the last change.
    """

    known = _key("known")
    """Hash: call of parked messages -> time of the last poll by a worker that knows it."""

    wakeup = _lane_key(".bell")
    """List: at most one wake-up token, present when a consumer should fetch. Idle consumers block on this list."""

    leases = _key("leases")
    """Sorted set: owner -> time when its lease expires; 0 while its messages are reclaimed."""

    def hold(self, owner: str) -> str:
        """Hash: id leased to an owner -> token; ``#`` -> number, first token and count of its last fetch."""
        return f"{self.base}hold:{owner}"

    running = _key("running")
    """Hash: owner -> how many of its oldest leases may run, 1 when nothing runs beside it (else 0), and its host.

    On further lines the ids that it has run for over a second. It shows what an owner ran that ended together with
    its supervisor.
    """

    token = _key("token")
    """String: the last token that was issued."""

    @property
    def done(self) -> tuple[str, str]:
        """Hashes: id of a finished message -> token that finished it. They alternate every 10 minutes, and expire."""
        return f"{self.base}done:0", f"{self.base}done:1"

    notes = _key("notes")
    """Hash: data that only few messages have.

    ``level:<id>`` priority (1 high, 3 low); ``key:<id>`` unique key; ``crash:<id>`` number of crashes, time
    of the first and cause of the last: a signal, ``limit`` for the hard limit,
    ``alone`` after a move or without a crash; on the last line, after ``@``, the times of the crashes
    (``-`` for none) and, of a lapse suspect, ``+`` or time and host of each counted lapse; ``spent:<id>``
    the last move and its token; ``cancel:<id>`` the message must not start; ``asked:<id>`` its cancellation
    was requested while it was leased; ``ahead`` the milliseconds by which the server's clock was set back.
    """

    ends = _key("ends")
    """Hash: id of a member of a batch -> how it ended, until its batch has counted that.

    ``done``, ``failed`` or ``cancelled``. After ``?``, with a token, how the run under that token will have ended
    once its message is acknowledged.
    """

    suspects = _key("suspects")
    """Hash: id of a lapse suspect that is on another server -> when that changed (ms), its lone run, its lapses.

    Lone run and lapses are each ``<ms since the epoch>@<host>``, lapses with commas between; ``-`` is no lone run,
    ``+`` no lapse. Expires 72 hours after the last change; supervisors that read it remove older fields.
    """

    unique = _key("unique")
    """Hash: unique key -> id of the message that holds it. Byte 1 begins a key that is held until the start."""

    def unique_window(self, unique_key: str) -> str:
        """String: id of the last message of a unique key with a window. Expires with the window."""
        return f"{self.base}window:{unique_key}"

    stand_ins = _key("stand_ins")
    """Hash: id of a message that was not enqueued -> id of the one that held its unique key.

    ``for <id>`` -> the last five that this one stands for. At most 2,000 fields; expires an hour after the first.
    """

    yields = _key("yields")
    """Hash: actor -> sends of it that met a unique key which another unfinished message held.

    Beyond 500 actors, and of bodies that name none, they count for ``other``.
    """

    sends = _key("sends")
    """Hash: actor -> messages of it that were enqueued; with a line break and n, those due in 2**n minutes or more.

    Beyond 1,000 fields, and of bodies that name no actor, they count for ``other``.
    """

    paused = _key("paused")
    """String: present while the queue is paused: ``since``, ``until`` (0: none), ``by`` and ``reason`` as JSON.

    Expires at ``until``. Releases before 1.0 wrote the time of the pause alone.
    """

    actor_pauses = _key("pauses")
    """Hash: actor, with a line break and an argument's value as JSON if only those pause -> the pause as JSON.

    ``since``, ``until`` (0: none), ``token`` (the last that was issued
    before it), ``by``, ``reason``, ``actor``, ``argument``, its ``position`` and its ``value``. One that has ended
    stays until the messages that it had set aside are due again. An open circuit is one with ``calls``, the
    argument's position by actor; its ``until`` is the time of its next probe.
    """

    def circuit(self, digest: str) -> str:
        """Hash: calls of a dependency by outcome, ``ok`` and ``failed``, while its circuit is closed.

        Counted from a failure on; expires at the end of the dependency's window.
        """
        return f"{self.base}circuit:{digest}"

    limits = _key("limits")
    """Hash: actor -> its limits on what runs at once, as a JSON list; written by its workers when they start.

    Each with ``n``, and ``ordered`` where a key's messages keep their sequence; ``argument``, its ``position`` in
    calls without names and its ``default`` where its value is part of the key. After a line break a limit -> its
    override: ``n`` until ``until`` (ms since the epoch), ``since``, ``by`` and ``reason``.
    """

    slots = _key("slots")
    """Hash: id of a message that has places of limits -> their keys, each on a line of its own.

    On the first line ``held``, a time and the owner; ``next`` and the lane at whose head it
    waits; or ``kept`` while a message that keeps its key's sequence waits for something else.
    """

    waits = _key("waits")
    """Hash: id of a message that waits for a limit -> what it waits for.

    On the first line its turn, priority, the time since when it waits, which of its keys it
    waits for, and its lane, in a fair queue with its tag and tenant; then each key behind its limit. ``#`` the last
    turn, ``#scan`` and ``#key`` where the next check of the places begins; ``#`` and a limit, or a tenant and a
    key: how many wait for it.
    """

    turns = _key("turns")
    """Sorted set: index of limits by key, all scores 0: the key, a line break, what it is of, a line break, the id.

    ``h`` of a message that has a place; ``w``, priority and turn of one that waits.
    """

    fair = _lane_key(".fair")
    """String: which argument's value is a message's tenant in a fair lane, and weights of tenants, as JSON.

    ``argument``, its ``positions`` by actor in calls without names, and ``weights`` by the value's JSON. Written by
    the queue's workers when they start. Only live lanes are fair.
    """

    fair_turn = _lane_key(".turn")
    """String: the last turn in a fair lane's lines."""

    def fair_lines(self, lane: Lane) -> tuple[str, str, str]:
        """Sorted sets: the lines of a fair lane's tenants; time of those that wait; time of those that stopped.

        A member of a line is the tenant, a line break, priority and turn, a line break, and the id; all scores are 0.
        A tenant's time is the number of its messages that were leased, each divided by its weight.
        """
        name = f"{self.base}{self.lane_name(lane)}"
        return f"{name}.lines", f"{name}.shares", f"{name}.spent"

    refused = _key("refused")
    """String: reason why enqueuing is refused, present while the server may delete keys. Expires unless renewed."""

    swept = _key("swept")
    """String: time of the last sweep for expired leases."""

    dead = _queue_key("-dead")
    """List: ids of dead letters, oldest first. Nothing consumes it."""

    dead_letters = _queue_key("-dead.letters")
    """Hash: id of a dead letter -> the dead letter as JSON."""

    quarantine = _queue_key("-quarantine")
    """List: unreadable messages as JSON, newest first."""

    quarantined_bodies = _queue_key("-quarantine.bodies")
    """Hash: id of a quarantined message -> its whole body."""

    jobs = _key("job:live")
    """Hash: id of a job that was started and has not ended -> 20 digits of its sequence, and its record."""

    progress = _key("job:progress")
    """Hash: id of a job that has not ended -> its last progress, as JSON."""

    followed = _key("job:followed")
    """Sorted set: id of a job that somebody follows -> until when its steps become events."""

    ended = _key("job:ended")
    """Hash: figures of the ended jobs.

    ``first`` and ``last`` number of a bucket; ``at`` when the last one was begun, ms since the epoch, ``size`` its
    bytes, ``size:<n>`` those of bucket n, ``bytes`` of all of them; ``history`` bytes of the history's stream,
    ``dropped`` rows that it lost to its budget, ``removed_ms`` and ``removed_sequence`` the id of its last entry
    that is in the database.
    """

    def ended_bucket(self, bucket: int) -> str:
        """Hash: id of an ended job -> its record, MessagePack; ``<id>:progress`` -> its last progress, JSON.

        The oldest bucket is deleted whole.
        """
        return f"{self.base}job:ended:{bucket}"

    def kept_result(self, job_id: str) -> str:
        """String: record of an ended job whose ``result_ttl`` is longer than records are kept. Expires with it."""
        return f"{self.base}job:result:{job_id}"

    def ended_mark(self, job_id: str) -> str:
        """String: 1, the mark of the end of a job that was sent with an id of its own. Expires after 25 hours.

        A request that is repeated under its ``Idempotency-Key`` finds it when the job's record is no longer kept.
        """
        return f"{self.base}job:mark:{job_id}"

    def job_events(self, job_id: str) -> str:
        """Stream: events of a job since its first follower."""
        return f"{self.base}job:{job_id}:events"

    history = _key("job:history")
    """Stream: ended attempts that are not in the database yet. Fields: ``n`` rows, ``rows`` MessagePack array."""

    purges = _key("aside:purges")
    """Hash: id of a purge that set messages aside -> ``count``, ``at``, ``until``, ``by`` and ``reason`` as JSON.

    ``<id>:claim`` -> ``undo`` or ``drop``, once that is decided; ``<id>:left_out`` -> messages that were left out.
    """

    def aside(self, purge: str) -> tuple[str, str, str]:
        """Hashes: bodies, notes and unique keys of the messages that a purge set aside, as those of the queue."""
        base = f"{self.base}aside:{purge}:"
        return f"{base}bodies", f"{base}notes", f"{base}unique"

    def aside_waiting(self, purge: str, lane: Lane) -> tuple[str, str, str]:
        """Lists: ids that a purge set aside, next one first, of high, normal and low priority."""
        name = f"{self.base}aside:{purge}:{self.lane_name(lane)}"
        return f"{name}.high", name, f"{name}.low"

    def aside_due(self, purge: str, lane: Lane) -> str:
        """Sorted set: id that a purge set aside -> due time."""
        return f"{self.base}aside:{purge}:{self.lane_name(lane)}.due"

    def aside_jobs(self, purge: str) -> str:
        """Hash: id that a purge set aside -> its live record. Expires after nine days."""
        return f"{self.base}aside:{purge}:jobs"

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Return every key of the family but what its owners hold, each with the type that it has when it is there."""
        lists = [key for lane in ALL_LANES for key in (*self.waiting(lane), self.wakeup(lane))]
        lists += [self.dead, self.quarantine]
        hashes = [self.bodies, *self.done, self.dead_letters, self.notes, self.suspects, self.unique, self.known]
        hashes += [self.actor_pauses, self.yields, self.stand_ins, self.ends, self.limits, self.slots, self.waits]
        hashes += [self.sends, self.quarantined_bodies, self.running, self.jobs, self.progress, self.ended, self.purges]
        scored = [*map(self.due, ALL_LANES), *map(self.parked, ALL_LANES), self.leases, self.followed, self.turns]
        scored += self.fair_lines("live")
        texts = [self.token, self.swept, self.paused, self.refused, self.fair("live"), self.fair_turn("live")]
        kinds = (("list", lists), ("hash", hashes), ("zset", scored), ("string", texts), ("stream", [self.history]))
        return tuple((key, kind) for kind, keys in kinds for key in keys)

    def all_keys(self) -> tuple[str, ...]:
        """Return every key of the family but what its owners hold."""
        return tuple(key for key, _ in self.kinds())


class Keys(msgspec.Struct, frozen=True):
    """Key names below one prefix.

    Keys that one operation changes together share a hash tag, so that they live at one place.

    Args:
        slot_groups: Queues with the hash tag that they share with others instead of having their own.
    """

    prefix: str = "switchyard"
    slot_groups: tuple[tuple[str, str], ...] = ()

    def queue(self, queue: str) -> QueueKeys:
        """Keys of a queue family."""
        group = dict(self.slot_groups).get(queue)
        place = f"{{{group}}}:queue:{queue}" if group else f"{{{queue}}}"
        return QueueKeys(f"{self.prefix}:{place}:", queue)

    history_counts = _shared_key("history:counts")
    """Hash: rows that the history writer has ``written``, and ``skipped`` because they could not be read."""

    def facts_bucket(self, start: int) -> str:
        """Hash: code and subject -> count, of the ten seconds from a time, ms. Expires after 17 minutes."""
        return f"{self.prefix}:{{facts}}:bucket:{start}"

    def facts_span(self, start: int) -> str:
        """Hash: subject -> counts of each minute, MessagePack, of the ten minutes from a time (ms). Expires after 73 h.

        ``#`` -> the minutes that are in it.
        """
        return f"{self.prefix}:{{facts}}:minutes:{start}"

    def facts_flushed(self, member: str) -> str:
        """String: number of the last flush of a supervisor. Expires after an hour."""
        return f"{self.prefix}:{{facts}}:flushed:{member}"

    facts_read = _shared_key("{facts}:read")
    """Hash: queue, line break and counter of its sends -> the last reading that is in a bucket."""

    def window(self, name: str) -> str:
        """Sorted set: message id -> start or reserved start."""
        return f"{self.prefix}:window:{{{name}}}"

    rate_overrides = _shared_key("{rates}:overrides")
    """Hash: actor, with a space and the argument by whose value its rate counts -> the override, as of a limit."""

    alerts_due = _shared_key("{alerts}:due")
    """Sorted set: fingerprint -> when its group is to be sent next."""

    def alert_group(self, fingerprint: str) -> str:
        """Hash: one alert group."""
        return f"{self.prefix}:{{alerts}}:group:{fingerprint}"

    pool_reports = _shared_key("{pools}:index")
    """Set: members with a pool report."""

    def pool_report(self, member: str) -> str:
        """String: the report of one supervisor as JSON. Expires after the supervisor's end."""
        return f"{self.prefix}:{{pools}}:{member}"

    pool_beats = _shared_key("{pools}:beats")
    """Hash: member -> time of its last report (ms), of every supervisor that did not end in order."""

    def stacks_asked(self, member: str) -> str:
        """String: the last request for the stacks of a supervisor's children. Expires after 15 s."""
        return f"{self.prefix}:{{pools}}:asked:{member}"

    def stacks_answer(self, request: str) -> str:
        """String: the requested stacks as JSON. Expires after a minute."""
        return f"{self.prefix}:{{pools}}:stacks:{request}"

    def pool_instruction(self, member: str) -> str:
        """String: an operator's last instruction to a supervisor, as JSON. Expires after a minute."""
        return f"{self.prefix}:{{pools}}:instruction:{member}"

    def pool_quieted(self, member: str) -> str:
        """String: the instruction that a quieted supervisor obeyed, as JSON. Expires with its report."""
        return f"{self.prefix}:{{pools}}:quieted:{member}"

    headline = _shared_key("headline")
    """String: the finding that leads on the overview, as JSON: since when, and when it was last found.

    Expires after 10 s.
    """

    generation = _shared_key("generation")
    """Hash: the keyspace id. ``id``, ``made_at``, ``instead_of`` the ids of lost keyspaces."""

    generations_missed = _shared_key("generation:missed")
    """Set: keyspace ids that a process had read and then did not find. Nothing runs until they are accepted."""

    def abort(self, job_id: str) -> str:
        """String: the ``abort_timeout`` of a job that was aborted, ms. Expires after 90 s, or its ``abort_ttl``."""
        return f"{self.prefix}:abort:{{{job_id}}}"

    def group(self, group_id: str) -> str:
        """Hash: the barrier of a group with completion callbacks. ``size`` its number of jobs, ``job:<id>`` each that
        succeeded; in place of those ``sent`` once the callbacks were sent. Expires a day after the last change.
        """
        return f"{self.prefix}:group:{{{group_id}}}"

    def batch(self, batch_id: str) -> str:
        """Hash: a batch. ``facts`` as JSON; the bodies of its callbacks by name; times.

        ``created``, ``changed`` (a member was added, or ended), ``closed``, ``abandoned`` (closed, and cannot succeed),
        ``cancelled``, ``completed``, ``succeeded``, and ``sent:`` with the name of a callback. Expires seven days after
        the last end of a member, as do its members.
        """
        return f"{self.prefix}:batch:{{{batch_id}}}"

    def batch_members(self, batch_id: str) -> tuple[str, str, str, str]:
        """Hashes: id of a member of a batch -> its queue; of those that have not ended, are done, failed, cancelled."""
        name = self.batch(batch_id)
        return f"{name}:open", f"{name}:done", f"{name}:failed", f"{name}:cancelled"

    batches = _shared_key("{batches}:index")
    """Sorted set: id of a batch -> when it was made."""

    batches_due = _shared_key("{batches}:due")
    """Sorted set: id of a batch that has not ended -> when the scheduler looks at it next."""

    def limit(self, name: str) -> str:
        """String: a counter or an event of ``dramatiq.rate_limits``. Expires when its limiter or barrier says."""
        return f"{self.prefix}:limit:{{{_limiter_of(name)}}}:{name}"

    def limit_answer(self, name: str, request: str) -> str:
        """String: the answer to a change of such a counter, for a repetition of the call. Expires after 10 s."""
        return f"{self.prefix}:limit:{{{_limiter_of(name)}}}:answer:{request}"

    def lock(self, name: str) -> str:
        """String: the token of the process that holds a named lock."""
        return f"{self.prefix}:lock:{name}"

    def task_lock(self, name: str) -> tuple[str, str]:
        """Strings: the token of the task that holds a lock; number of the last one, remembered for a week."""
        return f"{self.prefix}:lock:{{{name}}}", f"{self.prefix}:lock:{{{name}}}:fence"

    def tick(self, actor: str, at: str) -> str:
        """String: a tick of a schedule, present after it was enqueued."""
        return f"{self.prefix}:tick:{actor}:{at}"


def _limiter_of(name: str) -> str:
    """Return the name of a limiter: Dramatiq's limiters add ``@`` and a time to it, one counter for each window."""
    return name.rpartition("@")[0] or name
