"""Lists of pages: the filters and orders that an address may name, and heads of columns that sort."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from django.apps import apps
from django.contrib import admin
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.filters import ListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import DataError, NotSupportedError, OperationalError, ProgrammingError
from django.db.models import ForeignKey, Model, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.utils.html import format_html

from switchyard.console.links import job_url

T = TypeVar("T")
_UNUSABLE = (
    *(ValueError, TypeError, IndexError, OverflowError),
    *(DataError, NotSupportedError, OperationalError, ProgrammingError),
)
# Lookups of Django's list filters and date hierarchies, and their like. SQLite runs a regex in Python, which stops
# every thread, and a regex or a prefix finds out a value that the page does not show.
_LOOKUP = r"(__(exact|in|isnull|isempty|range|date|((year|month|day)(__)?)?(gte|gt|lte|lt)?))?"


class CheckedQuery(ModelAdmin):
    """Refuse a list's lookups that no filter or link uses, and show the list without a value that is unusable.

    Django admits every lookup of every column, and converts some values only when the query runs. Stands before
    ``ModelAdmin`` in the list of base classes. ``run_right``: what actions with ``run`` need.
    """

    run_right = ""

    def has_run_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.run_right)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Return whether a filter, the date hierarchy or a link uses the lookup."""
        if LOOKUP_SEP not in lookup and _field(self.model, lookup) is None:
            return True  # Django shows the list without it.
        return any(re.fullmatch(re.escape(name) + _LOOKUP, lookup) for name in self._compared(request))

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return _CheckedList

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the address fills into a new row, without rows that there are not: Django fails at some."""
        found = super().get_changeform_initial_data(request)
        return {name: value for name, value in found.items() if _is_known(self.model, name, value)}

    def _compared(self, request: HttpRequest | None) -> Iterator[str]:
        yield from ("pk", self.model._meta.pk.name)
        if self.date_hierarchy:
            yield self.date_hierarchy
        for each in self.get_list_filter(request) if request is not None else self.list_filter:
            if isinstance(each, type) and issubclass(each, ListFilter):
                yield str(getattr(each, "parameter_name", ""))
                continue
            # A filter may also name its field by the field itself.
            column = each[0] if isinstance(each, tuple | list) else each
            name = str(getattr(column, "name", column))
            yield name
            if (target := _target(self.model, name)) is not None:
                yield f"{name}{LOOKUP_SEP}{target}"


class JobLink(CheckedQuery):
    """Page of a row with a column ``job_id``: it links the job's page, which has its state and its dead letter."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields, with the link in the place of ``job_id``."""
        return ["shown_job" if name == "job_id" else name for name in super().get_fields(request, obj)]

    @admin.display(description="Job")
    def shown_job(self, row: Any) -> str:
        address = job_url(row.job_id) if row.job_id else ""
        return format_html('<a href="{}">{}</a>', address, row.job_id) if address else row.job_id or "–"


class _CheckedList(ChangeList):
    """List that builds its query, and counts and reads its rows, inside the check."""

    def get_queryset(self, request: HttpRequest, *args: Any, **options: Any) -> QuerySet[Any]:
        # The date hierarchy fails for the last year that dates have.
        with _usable(request):
            return super().get_queryset(request, *args, **options)

    def get_results(self, request: HttpRequest) -> None:
        with _usable(request):
            super().get_results(request)


@contextmanager
def _usable(request: HttpRequest) -> Iterator[None]:
    """Have Django redirect to ``?e=1`` where a value of the address cannot be converted; it may match nothing."""
    try:
        yield
    except _UNUSABLE as error:
        if request.GET.keys() - {ERROR_FLAG}:
            raise IncorrectLookupParameters(error) from error
        raise


def check_foreign_lists(site: AdminSite) -> None:
    """Register other libraries' admin pages anew, with :class:`CheckedQuery` as their first base class."""
    for model in apps.get_models():
        if site.is_registered(model) and not isinstance(page := site.get_model_admin(model), CheckedQuery):
            site.unregister(model)
            site.register(model, type(f"Checked{type(page).__name__}", (CheckedQuery, type(page)), {}))


def _field(model: type[Model], name: str) -> Any:
    """Return a field by its name, ``None`` where there is none."""
    with suppress(FieldDoesNotExist):
        return model._meta.pk if name == "pk" else model._meta.get_field(name)
    return None


def _is_known(model: type[Model], name: str, value: Any) -> bool:
    """Return whether a value of a foreign key names a row; of any other field it is not asked."""
    if not isinstance(field := _field(model, name), ForeignKey):
        return True
    with suppress(*_UNUSABLE, ValidationError):
        return bool(field.related_model._base_manager.filter(pk=value).exists())
    return False


def _target(model: type[Model], path: str) -> str | None:
    """Return the column that a relation's filter compares; ``None`` for other fields."""
    field = None
    for part in path.split(LOOKUP_SEP):
        field = model._meta.get_field(part)
        model = field.related_model or model
    if field is None or not field.is_relation:
        return None
    return field.target_field.name if hasattr(field, "target_field") else model._meta.pk.name


DESCENDING = "descending"
ASCENDING = "ascending"


class SortColumn(NamedTuple):
    """A column that can be sorted: its name in templates, and its heading.

    ``orders`` are values of ``sort`` in the order of the clicks, "" for the list's own, whose direction is ``own``.
    """

    name: str
    text: str
    orders: tuple[str, ...]
    own: str = DESCENDING


class SortHead(NamedTuple):
    """A heading with the address that sorts by it; ``direction`` is "" unless the list is sorted by it."""

    text: str
    link: str
    direction: str


def by_figure(rows: Iterable[T], figure: Callable[[T], float | None], sort: str) -> list[T]:
    """Return rows in the order of a figure, downwards where ``sort`` begins with ``-``; those without one last."""
    found = [(figure(row), row) for row in rows]
    known = [(value, row) for value, row in found if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return [*(row for _, row in known), *(row for value, row in found if value is None)]


def heads_of(columns: Iterable[SortColumn], sort: str) -> dict[str, SortHead]:
    """Return the headings of a list in an order by their names; each click goes on to the next order of its column."""
    found = {}
    for column in columns:
        place = column.orders.index(sort) if sort in column.orders else -1
        following = (*column.orders, "")[place + 1]
        shown = column.own if not sort else DESCENDING if sort.startswith("-") else ASCENDING
        address = urlencode({"sort": following}) if following else ""
        found[column.name] = SortHead(column.text, f"?{address}", "" if place < 0 else shown)
    return found
