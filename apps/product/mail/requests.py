"""Ask for a mail. The job that sends it runs later, in a worker."""

from __future__ import annotations

from typing import Any

from dramatiq.actor import Actor

from apps.platform.jobs.services import enqueue_on_commit, submit
from apps.product.mail import actors
from apps.product.mail.models import Template

ACTORS: dict[str, Actor[Any, Any]] = {
    Template.WELCOME: actors.send_welcome_mail,
    Template.PASSWORD_RESET: actors.send_password_reset,
}


def request_mail(template: str, to: str, *, owner: str = "") -> str:
    """Enqueue a mail at once and return its job id.

    Args:
        template: ``welcome`` or ``password_reset``.

    Raises:
        BrokerUnavailable: the broker did not take the job.
    """
    return submit(ACTORS[template], owner=owner, kwargs={"to": to})


def request_mail_on_commit(template: str, to: str) -> str:
    """Enqueue a mail when the running transaction commits, and return the id its job has.

    Args:
        template: As for :func:`request_mail`.
    """
    return enqueue_on_commit(ACTORS[template], kwargs={"to": to})


def request_newsletter(to: str, headline: str, paragraphs: list[str]) -> str:
    """Enqueue a newsletter for one address, at low priority, and return its job id."""
    return submit(actors.newsletter, kwargs={"to": to, "headline": headline, "paragraphs": paragraphs})
