"""The API: every app mounts its router on it."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI
from ninja.errors import ValidationErrorContext
from ninja.openapi.docs import Swagger
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation

from switchyard.api.auth import BearerToken
from switchyard.api.exception_handlers import answer
from switchyard.api.idempotency import once
from switchyard.api.middleware import NAMESPACE
from switchyard.api.parsing import StrictParser, field_errors, invalid
from switchyard.api.problems import CONTENT_TYPE, FieldError, Problem, title_of
from switchyard.api.schemas import ProblemBody
from switchyard.console.room_view import independent

DESCRIPTION = """Submit background jobs, query their state, cancel them.

Every submit answers 202 with a job id at once; the work runs later. Follow it at `status_url`, or live at `events_url`.
Every refusal is an `application/problem+json` document (RFC 9457). Times are ISO 8601 in UTC with microseconds.
A repeated POST with the same `Idempotency-Key` returns the first response again and does its work once. After 429, 500
or 503 `outcome` says whether the work was enqueued, and `job_ids` names the jobs that are or may be."""

SCHEME = "BearerToken"
REASONS = {
    400: "The request cannot be read.",
    401: "No token, or an invalid one.",
    403: "The token lacks the required scope.",
    404: "Not found, or owned by another user.",
    409: "The first request with this Idempotency-Key is still running.",
    413: "The body is too large.",
    415: "The body's content type is not supported.",
    422: "Invalid values: see `errors`. Or the Idempotency-Key was used with a different request.",
    429: "The queue is full, or too many requests.",
    500: "Internal error; it was logged.",
    503: "The broker or the database does not answer.",
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}}},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "description": "Makes the request safe to repeat: at most 255 printable ASCII characters, kept for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class ApiDocument(OpenAPISchema):
    """django-ninja's OpenAPI document with every refusal, the scopes, and the header that makes a POST repeatable.

    ``describe_body`` of an operation returns the schema of its body, which may be empty, and the schemas that it names.
    """

    def operation_details(self, operation: Operation) -> dict[str, Any]:
        details: dict[str, Any] = super().operation_details(operation)
        responses = {int(status): response for status, response in details["responses"].items()}
        refusals = _statuses(operation, details) | {status for status in responses if status >= 400}
        responses |= {status: _refusal(status, responses.get(status, {})) for status in refusals}
        details["responses"] = dict(sorted(responses.items()))
        if describe := getattr(operation.view_func, "describe_body", None):
            schema, named = describe()
            if schema:
                content = details["requestBody"]["content"]["application/json"]
                self.schemas.pop(content["schema"]["$ref"].rpartition("/")[2])
                content["schema"] = schema
                self.add_schema_definitions(named)
        if "POST" in operation.methods and operation.auth_callbacks:
            details["parameters"] = [*details["parameters"], IDEMPOTENCY_KEY]
        return details

    def operation_security(self, operation: Operation) -> list[dict[str, Any]] | None:
        """Return the security requirement of an operation: OpenAPI 3.1 allows scopes for any scheme."""
        scopes = {scope for auth in operation.auth_callbacks if isinstance(auth, BearerToken) for scope in auth.scopes}
        if not scopes:
            return None
        self.securitySchemes[SCHEME] = {
            "type": "http",
            "scheme": "bearer",
            "description": "A token `sy_<prefix>_<secret>`, created in the admin or with "
            "`manage.py switchyard tokens create`. "
            "An operation lists scopes; the token needs one of them.",
        }
        return [{SCHEME: [scope]} for scope in sorted(scopes)]

    def get_components(self) -> dict[str, Any]:
        """Return the shared schemas, the problem document among them."""
        schema = self.schemas["Problem"] = ProblemBody.model_json_schema()
        errors = schema.pop("$defs")["FieldErrorBody"]
        schema["properties"]["errors"], schema["title"] = {"type": "array", "items": errors}, "Problem"
        components: dict[str, Any] = super().get_components()
        return components


class OwnSwagger(Swagger):
    """Swagger's page with scripts of this server: :mod:`switchyard.api.swagger`."""

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        given = json.dumps({**self.settings, "url": self.get_openapi_url(api, kwargs)}, indent=1)
        return render(request, self.template, {"swagger_settings": given, "api": api})


def _statuses(operation: Operation, details: dict[str, Any]) -> set[int]:
    places, checked = {parameter["in"] for parameter in details["parameters"]}, bool(operation.auth_callbacks)
    found = (
        (True, {500, 503}),
        (checked, {401, 403, 429}),
        (checked and "POST" in operation.methods, {400, 409, 422}),
        ("requestBody" in details, {400, 413, 415, 422}),
        ("path" in places, {404}),
        ("query" in places, {422}),
    )
    return {status for applies, statuses in found if applies for status in statuses}


def _refusal(status: int, known: dict[str, Any]) -> dict[str, Any]:
    said = known.get("description")
    response = {
        "description": said if said and said != title_of(status) else REASONS.get(status, title_of(status)),
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in HEADERS:
        response["headers"] = HEADERS[status]
    return response


# Routers of the platform apps: a path below the API's root, and a router's dotted path.
PLATFORM_ROUTERS = (
    ("/jobs", "switchyard.jobs.api.router"),
    ("/queues", "switchyard.operations.api.router"),
)


class SwitchyardAPI(NinjaAPI):
    """django-ninja with strict bodies, problem documents, idempotency keys and a complete OpenAPI document."""

    def set_default_exception_handlers(self) -> None:
        """Answer every exception with a problem document."""
        self.add_exception_handler(Exception, answer)

    def validation_error_from_error_contexts(  # type: ignore[override]
        self, error_contexts: list[ValidationErrorContext[Any]]
    ) -> Problem:
        errors: list[FieldError] = []
        for context in error_contexts:
            wrapped = hasattr(context.model, "__read_from_single_attr__")
            found = field_errors(context.pydantic_validation_error, skip=1 if wrapped else 0)
            if wrapped and any(error.field == "" and error.message == "is required" for error in found):
                return Problem(400, "the body is empty; send a JSON object")
            errors += found
        return invalid(errors)

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        """The addresses, exempt from ``ATOMIC_REQUESTS`` and ``LoginRequiredMiddleware``."""
        patterns, app_name, namespace = super().urls
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                independent(pattern.callback)
        return patterns, app_name, namespace

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        """Return the OpenAPI document, with every refusal."""
        return ApiDocument(self, path_prefix or self.get_root_path(path_params or {}))


def build_api(*routers: tuple[str, str]) -> SwitchyardAPI:
    """Return the API with routers: pairs of a path below its root (``/reports``) and a router's dotted path."""
    api = SwitchyardAPI(
        title="Switchyard",
        version="1",
        description=DESCRIPTION,
        urls_namespace=NAMESPACE,
        openapi_url="/openapi.json",
        docs_url="/docs",
        docs=OwnSwagger({"validatorUrl": None}),  # it would be asked about the document, on another server
        parser=StrictParser(),
    )
    api.add_decorator(once, mode="view")
    for path, router in routers:
        api.add_router(path, router)
    return api
