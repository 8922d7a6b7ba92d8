"""Lists of the admin whose address holds a value that the database cannot compare."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.admin.options import BaseModelAdmin, IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError, ProgrammingError
from django.http import HttpRequest


class CheckedQuery(BaseModelAdmin):
    """Answer an unusable value in a list's address as Django answers an unusable lookup: by the list without it.

    Django validates a lookup when it builds the query, but converts some values only when it runs:
    ``?created_at__year=0`` raises ``ValueError`` then. Stands before ``ModelAdmin`` in the list of base classes.
    """

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return the list's class."""
        return _checked(super().get_changelist(request, **options))  # type: ignore[misc]


class _CheckedList(ChangeList):
    """List that counts its rows inside the check."""

    def get_results(self, request: HttpRequest) -> None:
        """Count and read the rows.

        Raises:
            IncorrectLookupParameters: a value of the address cannot be converted; Django redirects to ``?e=1``.
        """
        try:
            super().get_results(request)
        except (ValueError, TypeError, IndexError, OverflowError, DataError, ProgrammingError) as error:
            raise IncorrectLookupParameters(error) from error


@cache
def _checked(base: type[ChangeList]) -> type[ChangeList]:
    return type(f"Checked{base.__name__}", (_CheckedList, base), {})
