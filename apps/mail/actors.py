"""Actors of the mail product. All are safe to repeat: the guard sends each job's mail once."""

from typing import Any

import dramatiq
from dramatiq.actor import Actor

from apps.mail import services
from apps.mail.models import Template
from switchyard.jobs.services import current_job_id

# Below guard.CLAIM_S together with one socket operation of EMAIL_TIMEOUT.
TIME_LIMIT_MS = 12_000
# Dramatiq starts lower numbers first; the default is 0.
LOW_PRIORITY = 100
# Over within 43 min: later nobody waits for the link any more, which is valid for an hour (checks.py compares them).
RESET_RETRIES = 9


@dramatiq.actor(queue_name="default", rate_limit="10/m", time_limit=TIME_LIMIT_MS, redact=("to",))
def send_welcome_mail(to: str) -> None:
    """Send the welcome mail to one address. At most ten start within a minute, over all workers."""
    services.deliver(Template.WELCOME, to, job_id=current_job_id())


@dramatiq.actor(queue_name="urgent", max_retries=RESET_RETRIES, redact=("to",))
def send_password_reset(to: str) -> None:
    """Send a password reset link. The link is made here, so that no message or status holds it."""
    services.deliver(Template.PASSWORD_RESET, to, job_id=current_job_id())


@dramatiq.actor(
    queue_name="default", priority=LOW_PRIORITY, rate_limit="10/h per to", time_limit=TIME_LIMIT_MS, redact=("to",)
)
def newsletter(to: str, headline: str, paragraphs: list[str]) -> None:
    """Send one newsletter to one address, best effort: one attempt, after all other work, never a dead letter.

    An address gets ten within an hour at most; others wait for the next hour.
    """
    services.send_newsletter(to, headline, paragraphs, job_id=current_job_id())


# Template whose only argument is an address -> its actor.
ACTORS: dict[str, Actor[Any, Any]] = {Template.WELCOME: send_welcome_mail, Template.PASSWORD_RESET: send_password_reset}
