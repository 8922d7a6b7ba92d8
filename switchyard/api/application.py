"""The API: every app mounts its router on it."""

from __future__ import annotations

from typing import Any

from ninja import NinjaAPI
from ninja.errors import ValidationErrorContext
from ninja.openapi.docs import Swagger
from ninja.openapi.schema import OpenAPISchema

from switchyard.api.description import DESCRIPTION, ApiDocument
from switchyard.api.exception_handlers import answer
from switchyard.api.idempotency import once
from switchyard.api.parsing import StrictParser, field_errors, invalid
from switchyard.api.problems import FieldError, Problem

# Routers of the platform apps: a path below the API's root, and a router's dotted path.
PLATFORM_ROUTERS = (("/jobs", "switchyard.jobs.api.router"), ("/queues", "switchyard.operations.api.router"))


class SwitchyardAPI(NinjaAPI):
    """django-ninja with strict bodies, problem documents, idempotency keys and a complete OpenAPI document."""

    def set_default_exception_handlers(self) -> None:
        """Answer every exception with a problem document."""
        self.add_exception_handler(Exception, answer)

    def validation_error_from_error_contexts(  # type: ignore[override]
        self, error_contexts: list[ValidationErrorContext[Any]]
    ) -> Problem:
        """Return the validation errors of a request as one problem."""
        errors: list[FieldError] = []
        for context in error_contexts:
            wrapped = hasattr(context.model, "__read_from_single_attr__")
            found = field_errors(context.pydantic_validation_error, skip=1 if wrapped else 0)
            if wrapped and any(error.field == "" and error.message == "is required" for error in found):
                return Problem(400, "the body is empty; send a JSON object")
            errors += found
        return invalid(errors)

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        """Return the OpenAPI document, with every refusal."""
        return ApiDocument(self, path_prefix or self.get_root_path(path_params or {}))


def build_api(*routers: tuple[str, str]) -> SwitchyardAPI:
    """Return the API with routers mounted.

    Args:
        routers: Pairs of a path below the API's root (``/reports``) and a router's dotted path.
    """
    api = SwitchyardAPI(
        title="Switchyard",
        version="1",
        description=DESCRIPTION,
        urls_namespace="switchyard_api",
        openapi_url="/openapi.json",
        docs_url="/docs",
        docs=Swagger({"validatorUrl": None}),  # it would be asked about the document, on another server
        parser=StrictParser(),
    )
    api.add_decorator(once, mode="view")
    for path, router in routers:
        api.add_router(path, router)
    return api
