"""A mail without the product's rate limit of ten a minute, and a probe for each live queue."""

import dramatiq

from apps.mail import services
from apps.mail.models import Template
from switchyard.jobs.services import current_job_id


@dramatiq.actor(queue_name="default", redact=("to",))
def send_note(to: str) -> None:
    """Send one mail with the product's own code."""
    services.deliver(Template.WELCOME, to, job_id=current_job_id())


def probe() -> None:
    """Do nothing: only its start is measured."""


for queue in ("urgent", "default", "webhook"):
    dramatiq.actor(probe, actor_name=f"probe_{queue}", queue_name=queue)
