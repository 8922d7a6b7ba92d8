"""The API's page: every operation of the OpenAPI document as plain HTML, in the room's frame."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase

from switchyard.api.models import SCOPES
from switchyard.api.reference import Reference, marked_up


class ReferencePage(DocsBase):
    """Page at ``docs_url``: complete without JavaScript, with no file from elsewhere."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        """Render the page."""
        document = api.get_openapi_schema(path_params=kwargs)
        context = {
            "title": f"{api.title} API",
            "description": [marked_up(paragraph) for paragraph in api.description.split("\n\n")],
            "scopes": SCOPES,
            "sections": Reference(document).sections(),
            "document_url": self.get_openapi_url(api, kwargs),
        }
        return render(request, "switchyard_api/reference.html", context)
