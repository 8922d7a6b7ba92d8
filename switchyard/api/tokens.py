"""Creation, verification and revocation of API tokens."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from switchyard.api.models import SCOPE_PERMISSIONS, Token, validate_scopes
from switchyard.audit.services import Who, act

SECRET_BYTES = 32
PREFIX_CHARACTERS = 12
LAST_USED_EVERY = timedelta(minutes=1)
_SHAPE = re.compile(r"sy_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
# Compared when no token has the prefix, so that the time does not reveal which prefixes exist.
_NO_HASH = "0" * 64


def create_token(*, owner: Any, scopes: Sequence[str], name: str) -> tuple[Token, str]:
    """Create a token and return it with its plain form, which is not stored; ``ValidationError`` for its scopes."""
    token = Token(owner=owner, scopes=list(scopes), name=name)
    plain = issue_secret(token)
    validate_scopes(token.scopes)
    if lost := token.lost:
        needed = ", ".join(name for scope in lost for name in SCOPE_PERMISSIONS[scope]) or "an active account"
        raise ValidationError(f"scopes: {owner} may not {', '.join(lost)}; give the user {needed} first")
    token.save()
    return token, plain


def issue_secret(token: Token) -> str:
    """Give an unsaved token its prefix and secret, and return the plain form ``sy_<prefix>_<secret>``."""
    token.prefix = secrets.token_hex(PREFIX_CHARACTERS // 2)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    token.secret_hash = _hash(secret)
    return f"sy_{token.prefix}_{secret}"


def find_token(plain: str) -> Token | None:
    """Return the valid token of a plain form; ``None`` when unknown, wrong, revoked, or of an inactive user."""
    shape = _SHAPE.fullmatch(plain)
    if shape is None:
        return None
    prefix, secret = shape.groups()
    token = Token.objects.select_related("owner").filter(prefix=prefix).first()
    same = hmac.compare_digest(token.secret_hash if token else _NO_HASH, _hash(secret))
    if token is None or not same or token.revoked_at is not None or not token.owner.is_active:
        return None
    _ = token.rights  # read here: views of the API that are asynchronous must not ask the database
    return token


def note_use(token: Token) -> None:
    """Record the use of a token, at most once a minute."""
    now = timezone.now()
    stale = now - LAST_USED_EVERY
    if token.last_used_at is None or token.last_used_at < stale:
        unused = Q(last_used_at__isnull=True) | Q(last_used_at__lt=stale)
        Token.objects.filter(unused, pk=token.pk).update(last_used_at=now)


def revoke_token(prefix: str, *, who: Who) -> Token:
    """Revoke a token permanently; repeating it changes nothing. ``Token.DoesNotExist`` where none has the prefix."""
    with act("token.revoke", who=who, target=prefix):
        token = Token.objects.get(prefix=prefix)
        if token.revoked_at is None:
            token.revoked_at = timezone.now()
            token.save(update_fields=["revoked_at"])
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
