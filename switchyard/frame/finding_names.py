"""Search among what the code declares and the broker reports: queues, actors, schedules, workers."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq

from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard
from switchyard.console.links import actor_url, queue_url, schedule_url, worker_url
from switchyard.frame.hits import Hit
from switchyard.schedules.registry import schedules as declared_schedules

MOST = 20


def queues(asked: str) -> Iterator[Hit]:
    """Find queues by a part of their name."""
    for queue in declared_yard().queues:
        if asked.lower() in queue.name.lower():
            pools = ", ".join(pool.name for pool in declared_yard().pools_of(queue.name))
            note = f"pools: {pools}" if pools else ""
            yield Hit(queue.name, queue_url(queue.name), note, asked == queue.name)


def actors(asked: str) -> Iterator[Hit]:
    """Find actors by a part of their name."""
    for name, actor in sorted(dramatiq.get_broker().actors.items()):
        if asked.lower() in name.lower():
            yield Hit(name, actor_url(name), f"queue {actor.queue_name}", asked == name)


def schedules(asked: str) -> Iterator[Hit]:
    """Find schedules by a part of their name."""
    for schedule in declared_schedules():
        if asked.lower() in schedule.name.lower():
            yield Hit(schedule.name, schedule_url(schedule.name), schedule.text, asked == schedule.name)


def workers(asked: str) -> Iterator[Hit]:
    """Find supervisors by pool, host, process or release.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    shown = 0
    for report in facilities(dramatiq.get_broker()).pools.read_all():
        pids = {str(report.pid), *(str(child.get("pid")) for child in report.children)}
        named = asked.lower() in f"{report.pool} {report.host}".lower()
        if shown < MOST and (named or asked in pids or asked in (report.member, report.release)):
            shown += 1
            note = f"{report.state}, {report.busy} of {report.slots} busy"
            title = f"{report.pool} on {report.host}, pid {report.pid}"
            yield Hit(title, worker_url(report.member), note, is_id=asked == report.member)
