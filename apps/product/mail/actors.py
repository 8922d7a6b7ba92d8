"""The jobs of the mail product. Safe to repeat: the guard sends each job's mail once."""

from __future__ import annotations

import dramatiq

from apps.platform.jobs.services import current_job_id
from apps.product.mail import services

# Together with one socket operation of EMAIL_TIMEOUT this stays below guard.CLAIM_S.
TIME_LIMIT_MS = 12_000
# Dramatiq starts lower numbers first; everything that names no priority has 0.
LOW_PRIORITY = 100


@dramatiq.actor(queue_name="default", rate_limit="10/m", time_limit=TIME_LIMIT_MS, redact=("to",))
def send_welcome_mail(to: str) -> None:
    """Send the welcome mail to one address. At most ten start within a minute, over all workers."""
    services.send_welcome(to, job_id=current_job_id())


@dramatiq.actor(queue_name="urgent", redact=("to",))
def send_password_reset(to: str) -> None:
    """Send a link to set a new password. The link is made here, so that no message or status ever holds it."""
    services.send_password_reset(to, job_id=current_job_id())


@dramatiq.actor(queue_name="default", priority=LOW_PRIORITY, time_limit=TIME_LIMIT_MS, redact=("to",))
def newsletter(to: str, headline: str, paragraphs: list[str]) -> None:
    """Send one newsletter to one address, best effort: tried once, after all other work, never a dead letter."""
    services.send_newsletter(to, headline, paragraphs, job_id=current_job_id())
