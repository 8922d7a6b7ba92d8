"""Composition of mails: subject, text and HTML from the templates in ``templates/mail/``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from apps.mail import links
from apps.mail.guard import sender_domain
from apps.mail.models import SentMail, Template
from apps.shop.models import Customer
from switchyard.conf import switchyard_settings

SUBJECTS = {
    Template.WELCOME: "Welcome to Switchyard",
    Template.PASSWORD_RESET: "Set a new password",
    Template.NEWSLETTER: "What is new in the yard",
}


@dataclass(frozen=True, slots=True)
class Issue:
    """Content of a newsletter: a headline and its paragraphs."""

    headline: str = ""
    paragraphs: tuple[str, ...] = ()


def compose(mail: SentMail, issue: Issue | None = None) -> EmailMultiAlternatives:
    """Return the composed mail. Every run composes it anew, with the same Message-ID.

    Args:
        issue: The newsletter's content; only for that template.
    """
    template = Template(mail.template)
    context: dict[str, Any] = {
        "subject": issue.headline if issue and issue.headline else SUBJECTS[template],
        "name": Customer.objects.filter(email=mail.to).values_list("name", flat=True).first() or "",
        "to": mail.to,
        "site_url": switchyard_settings().public_url + "/",
        "issue": issue,
    }
    if template == Template.PASSWORD_RESET:
        context["reset_link"] = links.reset_link(mail)
        context["valid_minutes"] = int(links.VALID_FOR.total_seconds() // 60)
    headers = {"Message-ID": mail.message_id, "Auto-Submitted": "auto-generated"}
    if template == Template.NEWSLETTER:
        address = f"unsubscribe@{sender_domain()}?subject=unsubscribe"
        headers |= {"Precedence": "bulk", "List-Unsubscribe": f"<mailto:{address}>"}
    message = EmailMultiAlternatives(
        subject=" ".join(context["subject"].split()),
        body=render_to_string(f"mail/{template}.txt", context),
        to=[mail.to],
        headers=headers,
    )
    message.attach_alternative(render_to_string(f"mail/{template}.html", context), "text/html")
    return message
