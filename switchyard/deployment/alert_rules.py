"""Prometheus alert rules as data: the rules of each queue, of each pool, and of the yard as a whole.

``%(name)s`` in a text stands for a fact of the queue or pool; ``prometheus.py`` fills it in and names every fact.
Every process that knows a queue or a pool reports the same figure, so expressions take the largest, never the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["page", "ticket"]

DEPTH_LIMIT = 200
FAILURE_SHARE = 0.05
# With fewer attempts a share is not significant.
FAILURE_MIN_ATTEMPTS = 20
STORM_RETRIES_PER_MINUTE = 20
CRASHES_IN_TEN_MINUTES = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alert.

    Attributes:
        hold_s: Time for which the expression must hold, in seconds; 0 alerts at once.
        severity: ``page`` wakes someone, ``ticket`` waits for the morning, ``objective`` pages for queues with a short
            objective only.
        where: Part of the yard to check first.
        cause: Usual reason for the alert.
        next_step: Remedy.
        steps: Heading of its steps on the page of steps, made of docs/how-to/triage.md.
        needs_objective: Leave the rule out for queues without an objective.
        needs_done_objective: Leave the rule out for queues that do not promise their end.
    """

    name: str
    expression: str
    hold_s: int
    severity: Severity | Literal["objective"]
    where: Literal["queue", "workers", "tasks"]
    summary: str
    cause: str
    next_step: str
    steps: str
    needs_objective: bool = False
    needs_done_objective: bool = False


QUEUE_RULES = (
    Rule(
        name="SwitchyardQueueDeep",
        steps="Late",
        expression=f'max(switchyard_queue_depth{{queue="%(queue)s",state="waiting"}}) > {DEPTH_LIMIT}',
        hold_s=30,
        severity="objective",
        where="queue",
        summary=f"%(queue)s: {{{{ $value }}}} messages wait, more than {DEPTH_LIMIT} for 30 s",
        cause="More work arrives than the pool finishes, or nothing dispatches it.",
        next_step="See which of SwitchyardNothingDispatches and SwitchyardSlotsFull fires beside this one; "
        "`manage.py switchyard queues` shows %(queue)s now.",
    ),
    Rule(
        name="SwitchyardQueueLate",
        steps="Late",
        expression="%(late)s",
        hold_s=30,
        severity="objective",
        where="queue",
        summary="%(queue)s: the oldest message waits for {{ $value | humanizeDuration }}, "
        "%(objective_s)s s were promised",
        cause="Every slot is busy, or the pool does not take what waits.",
        next_step="Compare busy slots with all slots on the dashboard: full asks for slots, idle for dispatch.",
        needs_objective=True,
    ),
    Rule(
        name="SwitchyardQueueEndsLate",
        steps="Late",
        expression="%(ends_late)s",
        hold_s=30,
        severity="objective",
        where="tasks",
        summary="%(queue)s: the oldest message was ready {{ $value | humanizeDuration }} ago and has not ended, "
        "%(done_objective_s)s s were promised",
        cause="What its tasks call is slow, one of them hangs, or the queue starts late as well.",
        next_step="The page of %(queue)s shows who holds the slots and since when; retries are not counted.",
        needs_done_objective=True,
    ),
    Rule(
        name="SwitchyardNothingDispatches",
        steps="No pool",
        expression="%(late)s\nand %(busy_share)s < 0.5",
        hold_s=30,
        severity="objective",
        where="queue",
        summary="%(queue)s: work waits while more than half of its slots are idle",
        cause="The pool lost the broker, hangs, or consumes nothing.",
        next_step="Read the pool's log and ask /readyz for the broker; then restart the pool, its messages go back.",
        needs_objective=True,
    ),
    Rule(
        name="SwitchyardSlotsFull",
        steps="Late",
        expression="%(late)s\nand %(busy_share)s >= 0.95",
        hold_s=60,
        severity="objective",
        where="workers",
        summary="%(queue)s: every slot is busy and work is late",
        cause="Too few slots for what arrives, or one slow actor holds them.",
        next_step="Look at duration by actor on the dashboard. A slow actor belongs in another queue; "
        "otherwise raise processes or slots of the pool in the topology, or run a second pool.",
        needs_objective=True,
    ),
    Rule(
        name="SwitchyardFailureRate",
        steps="Failing",
        expression=f"sum by (actor) (%(failed_5m)s)\n/ sum by (actor) (%(ended_5m)s) > {FAILURE_SHARE:g}\n"
        f"and sum by (actor) (%(ended_5m)s) >= {FAILURE_MIN_ATTEMPTS}",
        hold_s=60,
        severity="objective",
        where="tasks",
        summary="%(queue)s: {{ $value | humanizePercentage }} of {{ $labels.actor }} failed in 5 min",
        cause="A release broke the actor, its data changed, or what it calls is down.",
        next_step="See the exceptions on the dashboard, row Tasks; check the last release and what the actor calls.",
    ),
    Rule(
        name="SwitchyardRetryStorm",
        steps="Retrying",
        expression=f"%(retries_5m)s > {5 * STORM_RETRIES_PER_MINUTE}\nand %(retries_5m)s > 0.5 * sum(%(ended_5m)s)",
        hold_s=60,
        severity="ticket",
        where="tasks",
        summary="%(queue)s: {{ $value | humanize }} retries in five minutes, more than half of all attempts",
        cause="What the actors call is down, so each message comes back again and again.",
        next_step="New work is not held up: retries wait in %(retry_lane)s. Find by exception what is down.",
    ),
    Rule(
        name="SwitchyardDeadLetters",
        steps="Failing",
        expression='delta(switchyard_dead_letters{queue="%(queue)s"}[5m]) > 0',
        hold_s=0,
        severity="objective",
        where="tasks",
        summary="%(queue)s: messages were given up and lie in %(dead_list)s",
        cause="Retries ran out, or the failure is one that no retry can mend.",
        next_step="`manage.py switchyard deadletters list --queue %(queue)s` lists them; mend the cause, then requeue.",
    ),
)

POOL_RULES = (
    Rule(
        name="SwitchyardPoolDown",
        steps="No pool",
        expression="max(%(up)s) == 0 or absent(%(up)s)",
        hold_s=30,
        severity="page",
        where="workers",
        summary="pool %(pool)s: no child takes work",
        cause="The pool is not running, refused its configuration (exit 78), or cannot reach the broker.",
        next_step="Read the log of `manage.py switchyard runpool %(pool)s`; `manage.py check` names a mistake.",
    ),
    Rule(
        name="SwitchyardPoolCrashing",
        steps="Crashing",
        expression=f"sum(max by (reason) (%(crashes_10m)s)) > {CRASHES_IN_TEN_MINUTES}",
        hold_s=0,
        severity="ticket",
        where="workers",
        summary="pool %(pool)s: {{ $value | humanize }} children were replaced within ten minutes",
        cause="A task kills its child: a crash in C code, or more memory than there is.",
        next_step="The pool's log names the signal and the messages that ran; move that actor aside or mend it.",
    ),
    Rule(
        name="SwitchyardPoolMemory",
        steps="Memory",
        expression='max(switchyard_worker_memory_bytes{pool="%(pool)s"}) > %(memory_threshold_bytes)s',
        hold_s=300,
        severity="ticket",
        where="workers",
        summary="pool %(pool)s: uses {{ $value | humanize1024 }}B of its container's %(memory_mib)s MiB",
        cause="An actor keeps memory, or its work is bigger than the pool was sized for.",
        next_step="Restart the pool to gain time; then raise its memory_limit_bytes in the topology or mend the actor.",
    ),
)

YARD_RULES = (
    Rule(
        name="SwitchyardWebDown",
        steps="The web",
        expression='up{job="web"} == 0 or absent(up{job="web"})',
        hold_s=30,
        severity="page",
        where="queue",
        summary="the web does not answer Prometheus",
        cause="The web is down, or its metrics token differs from Prometheus's.",
        next_step="Ask /healthz and /readyz; compare SWITCHYARD_METRICS_TOKEN. Queue alerts are blind meanwhile.",
    ),
    Rule(
        name="SwitchyardBrokerDown",
        steps="Broker away",
        expression="max(switchyard_broker_up) == 0",
        hold_s=20,
        severity="page",
        where="queue",
        summary="the broker does not answer, or accepts no work",
        cause="Valkey is down, full, a replica, or refuses the password.",
        next_step="/readyz and `manage.py switchyard queues` say which, and what to do. What was accepted is not lost.",
    ),
    Rule(
        name="SwitchyardQueueAway",
        steps="Node away",
        expression="max by (queue) (switchyard_queue_away) == 1",
        hold_s=30,
        severity="page",
        where="queue",
        summary="{{ $labels.queue }}: its node of the cluster does not answer, or its hash slot is half moved",
        cause="A master is down or cut off, and no replica has taken over; or a reshard was interrupted.",
        next_step="`manage.py switchyard broker` says which, and what to do. The other queues go on.",
    ),
    Rule(
        name="SwitchyardSchedulerMissing",
        steps="No scheduler",
        expression="max(switchyard_scheduler_up) == 0",
        hold_s=60,
        severity="page",
        where="queue",
        summary="no scheduler is running: periodic work does not start",
        cause="`manage.py switchyard runscheduler` ended or lost the broker.",
        next_step="Start it and read its log. What was missed meanwhile is caught up as each schedule says.",
    ),
    Rule(
        name="SwitchyardDeadLettersWaiting",
        steps="Dead letters",
        expression="switchyard_dead_letters > 0",
        hold_s=86_400,
        severity="ticket",
        where="tasks",
        summary="{{ $labels.queue }}: dead letters have waited for a day, {{ $value }} of them",
        cause="Nobody has looked at what was given up.",
        next_step="Open Dead letters in the admin; requeue or discard them group by group.",
    ),
    Rule(
        name="SwitchyardQuarantined",
        steps="Quarantined",
        expression="delta(switchyard_quarantined[5m]) > 0",
        hold_s=0,
        severity="ticket",
        where="tasks",
        summary="{{ $labels.queue }}: messages arrived that nobody can read",
        cause="Something else writes to the queue, or a producer runs another version.",
        next_step="`manage.py switchyard deadletters list --quarantined` shows them; find who sent them.",
    ),
    Rule(
        name="SwitchyardQueuePaused",
        steps="Paused",
        expression="switchyard_queue_paused == 1",
        hold_s=900,
        severity="ticket",
        where="queue",
        summary="{{ $labels.queue }}: paused for a quarter of an hour",
        cause="Someone paused it.",
        next_step="Ask whether it still has to be, and resume it.",
    ),
)
