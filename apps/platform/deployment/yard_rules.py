"""Alerts that belong to no single queue or pool."""

from __future__ import annotations

from typing import Any

from apps.platform.deployment.rule import alert


def rules() -> list[dict[str, Any]]:
    """Return the rules of the yard as a whole."""
    return [_web_down(), _broker_down(), _scheduler_missing(), _dead_letters_waiting(), _quarantined(), _queue_paused()]


def _web_down() -> dict[str, Any]:
    return alert(
        "SwitchyardWebDown",
        'up{job="web"} == 0 or absent(up{job="web"})',
        hold_s=30,
        severity="page",
        where="queue",
        summary="the web does not answer Prometheus",
        cause="The web is down, or its metrics token differs from Prometheus's.",
        next_step="Ask /healthz and /readyz; compare SWITCHYARD_METRICS_TOKEN. Queue alerts are blind meanwhile.",
    )


def _broker_down() -> dict[str, Any]:
    return alert(
        "SwitchyardBrokerDown",
        "max(switchyard_broker_up) == 0",
        hold_s=20,
        severity="page",
        where="queue",
        summary="the broker does not answer, or takes no work",
        cause="Valkey is down, full, a replica, or refuses the password.",
        next_step="/readyz and `manage.py queues` say which, and what to do. What was accepted is not lost.",
    )


def _quarantined() -> dict[str, Any]:
    return alert(
        "SwitchyardQuarantined",
        "delta(switchyard_quarantined[5m]) > 0",
        hold_s=0,
        severity="ticket",
        where="tasks",
        summary="{{ $labels.queue }}: messages arrived that nobody can read",
        cause="Something else writes to the queue, or a producer runs another version.",
        next_step="`manage.py deadletters list --quarantined` shows them; find who sent them.",
    )


def _scheduler_missing() -> dict[str, Any]:
    return alert(
        "SwitchyardSchedulerMissing",
        "max(switchyard_scheduler_up) == 0",
        hold_s=60,
        severity="page",
        where="queue",
        summary="no scheduler is running: periodic work does not start",
        cause="`manage.py runscheduler` ended or lost the broker.",
        next_step="Start it and read its log. What was missed meanwhile is caught up as each schedule says.",
    )


def _dead_letters_waiting() -> dict[str, Any]:
    return alert(
        "SwitchyardDeadLettersWaiting",
        "switchyard_dead_letters > 0",
        hold_s=86_400,
        severity="ticket",
        where="tasks",
        summary="{{ $labels.queue }}: dead letters have waited for a day, {{ $value }} of them",
        cause="Nobody has looked at what was given up.",
        next_step="Open Dead letters in the admin; requeue or discard them group by group.",
    )


def _queue_paused() -> dict[str, Any]:
    return alert(
        "SwitchyardQueuePaused",
        "switchyard_queue_paused == 1",
        hold_s=900,
        severity="ticket",
        where="queue",
        summary="{{ $labels.queue }}: paused for a quarter of an hour",
        cause="Someone paused it.",
        next_step="Ask whether it still has to be, and resume it.",
    )
