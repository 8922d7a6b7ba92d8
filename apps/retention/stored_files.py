"""Rows with one file each: the columns, the pages of the admin, and their kind of kept data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.core.files.storage import default_storage
from django.db import models, transaction
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.html import format_html
from dramatiq.actor import Actor

from apps.retention.kinds import RetentionKind
from switchyard.console.lists import CheckedQuery
from switchyard.console.room_view import ReadOnly
from switchyard.jobs.results import download
from switchyard.jobs.services import enqueue_on_commit


class StoredFile(models.Model):
    """A row with the columns of what ``save_file`` returned."""

    file = models.CharField(max_length=255, help_text="Name in the storage.")
    filename = models.CharField(max_length=100)
    content_type = models.CharField(max_length=100)
    size_bytes = models.PositiveBigIntegerField()
    sha256 = models.CharField("SHA-256 of the file", max_length=64)

    class Meta:
        abstract = True

    @property
    def is_stored(self) -> bool:
        return default_storage.exists(self.file)

    @property
    def described(self) -> dict[str, Any]:
        """The row's columns as ``save_file`` returns them."""
        return {name: getattr(self, name) for name in ("file", "filename", "content_type", "size_bytes", "sha256")}


class StoredFileAdmin(ReadOnly, CheckedQuery):
    """Admin of such rows, with their download."""

    deletable = True

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.download_view)
        return [path("<path:object_id>/download/", view, name=self._download), *super().get_urls()]

    @admin.display(description="size", ordering="size_bytes")
    def shown_size(self, row: StoredFile) -> str:
        return filesizeformat(row.size_bytes)

    @admin.display(description="file")
    def download_link(self, row: StoredFile) -> str:
        return format_html('<a href="{}">Download</a>', reverse(f"admin:{self._download}", args=[row.pk]))

    def download_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row):
            raise PermissionDenied(f"The missing right is {self.opts.app_label}.view_{self.opts.model_name}.")
        answer = row and download(row.file, filename=row.filename, content_type=row.content_type)
        if not answer:
            raise Http404(f"no such {self.opts.verbose_name}, or its file was removed; make it again")
        return answer

    def enqueue(
        self, request: HttpRequest, actor: Actor[..., Any], calls: Iterable[Mapping[str, Any]], noun: str, more: str
    ) -> None:
        """Enqueue calls of the actor that makes the files, and tell the user how many."""
        with transaction.atomic():
            count = len([enqueue_on_commit(actor, kwargs=dict(call)) for call in calls])
        messages.success(request, f"{f'1 {noun} is' if count == 1 else f'{count} {noun}s are'} on the way{more}")

    @property
    def _download(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_download"


def kind_of_stored_files(model: type[StoredFile], *, name: str, title: str, content: str, age: str) -> RetentionKind:
    """Return the kind of a model's rows with their files; see :class:`RetentionKind` for its arguments."""
    rows = model._default_manager

    def size() -> int:
        return rows.aggregate(total=models.Sum("size_bytes"))["total"] or 0

    def files(some: Sequence[Any]) -> Iterable[str]:
        return [row.file for row in some]

    def named(names: Sequence[str]) -> Iterable[str]:
        return rows.filter(file__in=names).values_list("file", flat=True)

    return RetentionKind(name, title, content, model=model, age=age, size=size, files=files, named=named)
