"""Filters that turn the name of a job, queue, actor, schedule or worker into the address of its page."""

from __future__ import annotations

from django import template

from switchyard.console import links

register = template.Library()

for function in (
    links.admin_url,
    links.job_url,
    links.queue_url,
    links.actor_url,
    links.letter_url,
    links.alert_url,
    links.path_of,
    links.schedule_url,
    links.steps_url,
    links.worker_url,
):
    register.filter(function.__name__, function)
