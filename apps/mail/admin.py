"""Admin of mails: sent mails, with an action that sends again."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.mail.actors import ACTORS
from apps.mail.allowances import PER_ADDRESS, mailbox_of
from apps.mail.models import SentMail, Template
from switchyard.console.lists import JobLink
from switchyard.console.room_view import ReadOnly
from switchyard.jobs.services import enqueue_on_commit


@admin.register(SentMail)
class SentMailAdmin(ReadOnly, JobLink):
    """Mails of all jobs, with an action that sends to the same address again."""

    deletable = True
    list_display = ("template", "to", "state", "runs", "created_at", "sent_at")
    list_filter = ("state", "template", "created_at")
    search_fields = ("to", "=job_id", "=message_id")
    search_help_text = "Address, job id or Message-ID"
    actions = ("send_again",)
    run_right = "mail.send_mail"
    list_per_page = 50

    @admin.action(description="Send the same mail again", permissions=["run"])
    def send_again(self, request: HttpRequest, mails: QuerySet[SentMail]) -> None:
        """Enqueue a new job for each chosen welcome or reset mail, a reset with a new link; newsletters are skipped."""
        chosen = mails.filter(template__in=ACTORS).values_list("template", "to").order_by("id")
        pairs, refused = [], 0
        for template, address in dict.fromkeys(chosen):
            if template == Template.PASSWORD_RESET and PER_ADDRESS.use(mailbox_of(address)):
                refused += 1
            else:
                pairs.append((template, address))
        with transaction.atomic():
            for template, address in pairs:
                enqueue_on_commit(ACTORS[template], kwargs={"to": address})
        messages.success(request, f"Mails on the way: {len(pairs)}; welcome mails go out ten a minute.")
        if refused:
            limit = f"an address gets at most {PER_ADDRESS.limit} in {PER_ADDRESS.window.seconds // 60} minutes"
            messages.warning(request, f"Reset mails not sent: {refused}; {limit}, try again later.")
