"""API tokens, stored responses to requests with an ``Idempotency-Key``, and counts of limited requests."""

from functools import cached_property
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

SCOPES = {
    "submit": "submit work and cancel one's own",
    "read": "read one's own jobs",
    "operate": "see and cancel everybody's jobs",
}
# Permissions that cover a scope: a token has it for as long as its owner has them.
SCOPE_PERMISSIONS: dict[str, tuple[str, ...]] = {
    "submit": ("switchyard_api.submit_work",),
    "read": (),
    "operate": ("switchyard_jobs.view_job", "switchyard_jobs.cancel_job"),
}


def covered_scopes(user: Any) -> list[str]:
    """Return the scopes that a user's permissions cover; a superuser's cover all."""
    return [scope for scope, permissions in SCOPE_PERMISSIONS.items() if all(map(user.has_perm, permissions))]


def validate_scopes(scopes: object) -> None:
    """Refuse anything but a non-empty list of known scopes by a ``ValidationError`` that names the unknown ones."""
    if not isinstance(scopes, list) or not scopes:
        raise ValidationError(f"scopes: none given; choose from {', '.join(SCOPES)}")
    unknown = [str(scope) for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ValidationError(f"scopes: {', '.join(unknown)} not known; choose from {', '.join(SCOPES)}")


class Token(models.Model):
    """A bearer token. Only a hash of its secret is stored, so that a copy of the database gives no access."""

    name = models.CharField(max_length=100, help_text="Where it is used, for people.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    scopes = models.JSONField(default=list, validators=[validate_scopes])
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    # Plain form, on the newly created object only; never saved.
    plain = ""

    class Meta:
        ordering = ["-created_at"]
        permissions = [("submit_work", "Can submit work through the API")]

    def __str__(self) -> str:
        return f"{self.name} (sy_{self.prefix}_…)"

    @property
    def owner_key(self) -> str:
        """Owner key of jobs: all tokens of a user see the same jobs."""
        return f"user:{self.owner_id}"

    @cached_property
    def rights(self) -> list[str]:
        """Scopes that the token was given and its owner's permissions still cover; ``operate`` includes ``read``."""
        given = {*self.scopes, *(["read"] if "operate" in self.scopes else [])}
        return [scope for scope in covered_scopes(self.owner) if scope in given] if self.owner.is_active else []

    @property
    def lost(self) -> list[str]:
        """Scopes that the token was given, and its owner's permissions do not cover."""
        return [scope for scope in self.scopes if scope not in self.rights]

    @property
    def shown_scopes(self) -> str:
        """The scopes for people, those marked that the owner's permissions do not cover."""
        lost = self.lost
        return ", ".join(f"{scope} (not its owner's)" if scope in lost else scope for scope in self.scopes)

    def allows(self, scope: str) -> bool:
        return scope in self.rights


class IdempotentRequest(models.Model):
    """The first request with an ``Idempotency-Key``, and its response once it exists.

    A ``status`` of 429, 500 or above is not final. ``claimed_at`` and ``repeated_at`` tell claims and their runs apart.
    """

    token = models.ForeignKey(Token, on_delete=models.CASCADE, related_name="idempotent_requests")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of method, path and body.")
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(default=bytes)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)
    repeated_at = models.DateTimeField(null=True, help_text="When the last repetition began to run; empty before.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["token", "key"], name="one_request_per_key")]

    def __str__(self) -> str:
        return f"{self.key} ({self.status or 'in flight'})"
