"""Alerts of one queue: too deep, too late and why, failing, storming, giving up."""

from __future__ import annotations

from typing import Any

from apps.platform.deployment.rule import Severity, alert
from broker.topology import Queue, Yard

DEPTH_LIMIT = 200
FAILURE_SHARE = 0.05
# A share of very few attempts says nothing.
FAILURE_MIN_ATTEMPTS = 20
STORM_RETRIES_PER_MINUTE = 20
# Queues that promise a start within this wake someone; the others wait for the morning.
PAGING_OBJECTIVE_MS = 60_000


def rules(yard: Yard, queue: Queue) -> list[dict[str, Any]]:
    """Return the rules of a queue. One that promises nothing is never late."""
    found = [_deep(queue)]
    if queue.objective_ms is not None:
        found += [_late(queue), _nothing_dispatches(yard, queue), _slots_full(yard, queue)]
    return [*found, _failing(queue), _retry_storm(queue), _dead_letters(queue)]


def _severity(queue: Queue) -> Severity:
    paging = queue.objective_ms is not None and queue.objective_ms <= PAGING_OBJECTIVE_MS
    return "page" if paging else "ticket"


def _is_late(queue: Queue) -> str:
    """Return what is true of a queue whose work waits for too long; a paused one is late on purpose."""
    objective_s = (queue.objective_ms or 0) / 1000
    late = f'max(switchyard_queue_oldest_age_seconds{{queue="{queue.name}"}}) > {objective_s:g}'
    return f'{late}\nunless max(switchyard_queue_paused{{queue="{queue.name}"}}) == 1'


def _busy_share(yard: Yard, queue: Queue) -> str:
    pools = "|".join(pool.name for pool in yard.pools_of(queue.name))
    busy = f'sum(max by (pool) (switchyard_worker_slots_busy{{pool=~"{pools}"}}))'
    slots = f'sum(max by (pool) (switchyard_worker_slots{{pool=~"{pools}"}}))'
    return f"{busy} / {slots}"


def _attempts(queue: Queue, outcomes: str) -> str:
    lanes = f"{queue.name}|{queue.retry_lane}"
    return f'increase(switchyard_messages_total{{queue=~"{lanes}",outcome=~"{outcomes}"}}[5m])'


def _deep(queue: Queue) -> dict[str, Any]:
    return alert(
        "SwitchyardQueueDeep",
        f'max(switchyard_queue_depth{{queue="{queue.name}",state="waiting"}}) > {DEPTH_LIMIT}',
        hold_s=30,
        severity=_severity(queue),
        where="queue",
        queue=queue.name,
        summary=f"{queue.name}: {{{{ $value }}}} messages wait, more than {DEPTH_LIMIT} for 30 s",
        cause="More work arrives than the pool finishes, or nothing dispatches it.",
        next_step=(
            "See which of SwitchyardNothingDispatches and SwitchyardSlotsFull fires beside this one; "
            f"`manage.py queues` shows {queue.name} now."
        ),
    )


def _late(queue: Queue) -> dict[str, Any]:
    return alert(
        "SwitchyardQueueLate",
        _is_late(queue),
        hold_s=30,
        severity=_severity(queue),
        where="queue",
        queue=queue.name,
        summary=(
            f"{queue.name}: the oldest message waits for {{{{ $value | humanizeDuration }}}}, "
            f"{(queue.objective_ms or 0) / 1000:g} s were promised"
        ),
        cause="Every slot is busy, or the pool does not take what waits.",
        next_step="Compare busy slots with all slots on the dashboard: full asks for slots, idle for dispatch.",
    )


def _nothing_dispatches(yard: Yard, queue: Queue) -> dict[str, Any]:
    return alert(
        "SwitchyardNothingDispatches",
        f"{_is_late(queue)}\nand {_busy_share(yard, queue)} < 0.5",
        hold_s=30,
        severity=_severity(queue),
        where="queue",
        queue=queue.name,
        summary=f"{queue.name}: work waits while more than half of its slots are idle",
        cause="The pool lost the broker, hangs, or consumes nothing.",
        next_step="Read the pool's log and ask /readyz for the broker; then restart the pool, its messages go back.",
    )


def _slots_full(yard: Yard, queue: Queue) -> dict[str, Any]:
    return alert(
        "SwitchyardSlotsFull",
        f"{_is_late(queue)}\nand {_busy_share(yard, queue)} >= 0.95",
        hold_s=60,
        severity=_severity(queue),
        where="workers",
        queue=queue.name,
        summary=f"{queue.name}: every slot is busy and work is late",
        cause="Too few slots for what arrives, or one slow actor holds them.",
        next_step=(
            "Look at duration by actor on the dashboard. A slow actor belongs in another queue; "
            "otherwise raise processes or slots of the pool in project/topology.py, or run a second pool."
        ),
    )


def _failing(queue: Queue) -> dict[str, Any]:
    failed = f"sum by (actor) ({_attempts(queue, 'retried|dead')})"
    all_of_them = f"sum by (actor) ({_attempts(queue, 'succeeded|retried|dead')})"
    return alert(
        "SwitchyardFailureRate",
        f"{failed}\n/ {all_of_them} > {FAILURE_SHARE:g}\nand {all_of_them} >= {FAILURE_MIN_ATTEMPTS}",
        hold_s=60,
        severity=_severity(queue),
        where="tasks",
        queue=queue.name,
        summary=f"{queue.name}: {{{{ $value | humanizePercentage }}}} of {{{{ $labels.actor }}}} failed in 5 min",
        cause="A release broke the actor, its data changed, or what it calls is down.",
        next_step="See the exceptions on the dashboard, row Tasks; check the last release and what the actor calls.",
    )


def _retry_storm(queue: Queue) -> dict[str, Any]:
    retries = f'sum(increase(switchyard_retries_total{{queue=~"{queue.name}|{queue.retry_lane}"}}[5m]))'
    attempts = f"sum({_attempts(queue, 'succeeded|retried|dead')})"
    return alert(
        "SwitchyardRetryStorm",
        f"{retries} > {5 * STORM_RETRIES_PER_MINUTE}\nand {retries} > 0.5 * {attempts}",
        hold_s=60,
        severity="ticket",
        where="tasks",
        queue=queue.name,
        summary=f"{queue.name}: {{{{ $value | humanize }}}} retries in five minutes, more than half of all attempts",
        cause="What the actors call is down, so each message comes back again and again.",
        next_step=f"New work is not held up: retries wait in {queue.retry_lane}. Find by exception what is down.",
    )


def _dead_letters(queue: Queue) -> dict[str, Any]:
    return alert(
        "SwitchyardDeadLetters",
        f'delta(switchyard_dead_letters{{queue="{queue.name}"}}[5m]) > 0',
        hold_s=0,
        severity=_severity(queue),
        where="tasks",
        queue=queue.name,
        summary=f"{queue.name}: messages were given up and lie in {queue.dead_list}",
        cause="Retries ran out, or the failure is one that no retry can mend.",
        next_step=f"`manage.py deadletters list --queue {queue.name}` shows them; mend the cause, requeue or discard.",
    )
