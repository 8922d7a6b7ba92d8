"""What django-ninja's OpenAPI document does not say by itself: refusals, scopes, ``Idempotency-Key``."""

from __future__ import annotations

from typing import Any, TypeVar

from apps.platform.api.problems import CONTENT_TYPE, title_of
from apps.platform.api.schemas import ProblemBody

DESCRIPTION = """Submit background work, follow it, stop it.

Every submit answers 202 with a job id at once; the work runs later. Follow it at `status_url`, or live at `events_url`.
Every refusal is an `application/problem+json` document (RFC 9457). Times are ISO 8601 in UTC with microseconds.
A POST with an `Idempotency-Key` that is sent again gets the first answer again and does its work once."""

SCHEME = "BearerToken"
REASONS = {
    400: "The request cannot be read.",
    401: "No token, or one that is not valid.",
    403: "The token lacks the scope that is asked for.",
    404: "Nothing is here, or it belongs to somebody else.",
    409: "The first request with this Idempotency-Key is still running.",
    413: "The body is too large.",
    415: "The body's content type is not taken here.",
    422: "Understood, but wrong: see `errors`. Or the Idempotency-Key came with another request before.",
    429: "Too much: a full queue, or too many requests.",
    500: "Our own failure. It was logged.",
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
METHODS = ("get", "post", "put", "patch", "delete")

D = TypeVar("D", bound=dict[str, Any])


def describe(document: D) -> D:
    """Complete an OpenAPI document in place and return it."""
    document["components"]["schemas"]["Problem"] = _problem_schema()
    scheme = document["components"].get("securitySchemes", {}).get(SCHEME)
    if scheme is not None:
        scheme["description"] = "A token `sy_<prefix>_<secret>`, made in the admin or by `manage.py createtoken`."
    for operations in document["paths"].values():
        for method in METHODS:
            if method in operations:
                _describe_operation(method, operations[method])
    return document


def _describe_operation(method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in sorted(_statuses(method, operation) | {int(known) for known in responses if int(known) >= 400}):
        responses[status] = _refusal(status, responses.get(status, {}))
    if method == "post" and "security" in operation:
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)


def _statuses(method: str, operation: dict[str, Any]) -> set[int]:
    statuses = {500, 503}
    if "security" in operation:
        statuses |= {401, 403, 429}
        if method == "post":
            statuses |= {400, 409, 422}
    if "requestBody" in operation:
        statuses |= {400, 413, 415, 422}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        statuses.add(404)
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
        statuses.add(422)
    return statuses


def _refusal(status: int, known: dict[str, Any]) -> dict[str, Any]:
    said = known.get("description")
    response = {
        "description": said if said and said != title_of(status) else REASONS.get(status, title_of(status)),
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in HEADERS:
        response["headers"] = HEADERS[status]
    return response


def _problem_schema() -> dict[str, Any]:
    schema = ProblemBody.model_json_schema()
    definitions = schema.pop("$defs")
    errors = definitions["FieldErrorBody"]
    schema["properties"]["errors"] = {"type": "array", "items": errors}
    schema["title"] = "Problem"
    return schema
