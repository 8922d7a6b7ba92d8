"""The retries of a password reset end before its link is of no use."""

from __future__ import annotations

from dataclasses import replace

from pytest_django import Settings

from apps.mail.actors import send_password_reset
from apps.mail.apps import check_reset_retries
from project.topology import YARD
from switchyard.broker.topology import RetryPolicy
from switchyard.middleware.retries import span_of


def test_a_reset_outlasts_an_outage_of_twenty_minutes_and_ends_before_its_link(settings: Settings) -> None:
    least_ms, most_ms = span_of(send_password_reset, YARD.queue_of("urgent").retry)

    assert least_ms > 20 * 60_000
    assert most_ms < settings.PASSWORD_RESET_TIMEOUT * 1_000
    assert check_reset_retries(None) == []


def test_retries_that_outlast_the_link_are_refused(settings: Settings) -> None:
    long = RetryPolicy(delays_ms=(5_000, 18_000_000))
    queues = tuple(replace(queue, retry=long) for queue in YARD.queues)
    settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=replace(YARD, queues=queues))

    [refused] = check_reset_retries(None)

    assert (refused.id, refused.obj) == ("switchyard.E061", "actor send_password_reset")
    assert refused.msg == "9 retries over 20 h to 1 day 17 h, but its link is valid for 1 h 00 min"
