"""Admin of mails: sent mails, actions that send again, and the development mailbox."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from apps.mail import allowances, mailbox
from apps.mail.actors import ACTORS
from apps.mail.models import Mailbox, SentMail, Template
from switchyard.console.lists import CheckedQuery, JobLink
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

    @admin.action(description="Send the same mail again", permissions=["run"])
    def send_again(self, request: HttpRequest, mails: QuerySet[SentMail]) -> None:
        """Enqueue a new job for each chosen welcome or reset mail, a reset with a new link; newsletters are skipped."""
        chosen = dict.fromkeys(mails.filter(template__in=ACTORS).values_list("template", "to").order_by("id"))
        pairs = [(kind, to) for kind, to in chosen if kind != Template.PASSWORD_RESET or not allowances.use(to)]
        with transaction.atomic():
            for template, address in pairs:
                enqueue_on_commit(ACTORS[template], kwargs={"to": address})
        messages.success(request, f"Mails on the way: {len(pairs)}; welcome mails go out ten a minute.")
        if refused := len(chosen) - len(pairs):
            limit = f"an address gets at most {allowances.LIMIT} in {allowances.WINDOW.seconds // 60} minutes"
            messages.warning(request, f"Reset mails not sent: {refused}; {limit}, try again later.")


@admin.register(Mailbox)
class MailboxAdmin(ReadOnly, CheckedQuery):
    """The development mailbox at ``/admin/mail/mailbox/``. Reads files; the proxy model only gives it a URL."""

    def get_urls(self) -> list[Any]:
        """Return the list and one mail's page, nothing else."""
        shown = self.admin_site.admin_view(self.show_mail)
        listed = self.admin_site.admin_view(self.changelist_view)
        return [path("", listed, name="mail_mailbox_changelist"), path("<str:name>/", shown, name="mail_mailbox_mail")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._check(request)
        search = request.GET.get("q", "")[:200]
        context = {"title": "Mailbox", "mails": mailbox.newest(search), "search": search, "folder": mailbox.folder()}
        return self._render(request, "admin/mail/mailbox.html", context)

    def show_mail(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show one mail: its HTML in a sandboxed frame, and its text."""
        self._check(request)
        mail = mailbox.read(name)
        if mail is None:
            raise Http404("no such mail in the mailbox")
        return self._render(request, "admin/mail/mail.html", {"title": mail["subject"] or "No subject", "mail": mail})

    def _check(self, request: HttpRequest) -> None:
        # Reset links are readable here, so being staff is not enough.
        if not self.has_view_permission(request):
            raise PermissionDenied("The missing right is mail.view_mailbox.")

    def _render(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        return TemplateResponse(
            request, template, {**self.admin_site.each_context(request), "opts": self.opts, **context}
        )
