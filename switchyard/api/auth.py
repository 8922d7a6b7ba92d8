"""Authentication of the API: bearer tokens with scopes, as authentication objects of django-ninja."""

import time
from collections import Counter
from typing import Any

from django.http import HttpRequest
from ninja.security.http import HttpAuthBase

from switchyard.api.models import Token
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import current_request, is_repeated_request
from switchyard.api.tokens import find_token, note_use

# Attribute of the request that caches its checked token.
_CHECKED = "_switchyard_token"


def token_of(request: HttpRequest) -> Token | None:
    """Return the valid token of a request or ``None``; checked once for each request."""
    if not hasattr(request, _CHECKED):
        plain = plain_token(request)
        token = find_token(plain) if plain else None
        if token is not None:
            note_use(token)
        setattr(request, _CHECKED, token)
    found: Token | None = getattr(request, _CHECKED)
    return found


def plain_token(request: HttpRequest) -> str:
    """Return the bearer token of a request, unchecked; "" without one."""
    scheme, _, plain = request.headers.get("Authorization", "").partition(" ")
    return plain.strip() if scheme.lower() == "bearer" else ""


class BearerToken(HttpAuthBase):
    """Accept requests whose token has a scope; ``request.auth`` is then the ``Token``.

    Args:
        scopes: ``submit``, ``read`` or ``operate``; one of those given suffices.
        a_minute: Requests of one token to one route within a minute, in each web process; those that only read are not
            counted. By default twice the rate that one process was measured with.

    Raises:
        Problem: 403, the token lacks the scope; 429, its allowance is used up. Without a token the API answers 401.
    """

    def __init__(self, *scopes: str, a_minute: int = 12_000) -> None:
        super().__init__()
        self.scopes, self.a_minute = scopes, a_minute
        self._minute, self._used = 0, Counter[tuple[Any, str]]()

    def __call__(self, request: HttpRequest) -> Token | None:
        token = token_of(request)
        if token is not None and not any(token.allows(scope) for scope in self.scopes):
            raise Problem(
                403,
                f"the token has the scopes {token.shown_scopes}, this request needs {' or '.join(self.scopes)}; "
                "use a token that has it, whose owner has the permission",
            )
        if token is not None and request.method not in ("GET", "HEAD") and not is_repeated_request():
            self._count(request, token)
        return token

    def _count(self, request: HttpRequest, token: Token) -> None:
        minute, passed_s = divmod(int(time.monotonic()), 60)
        if minute != self._minute:
            self._minute, self._used = minute, Counter()
        route = getattr(request.resolver_match, "route", "")
        self._used[token.pk, route] += 1
        if self._used[token.pk, route] > self.a_minute:
            if (jobs := current_request()) is not None:
                jobs.refused_before_work = True
            most = f"a token may send {self.a_minute} requests to this route a minute"
            raise Problem(429, f"{most}; send it again after Retry-After", headers={"Retry-After": f"{60 - passed_s}"})


submit_scope = BearerToken("submit")
read_scope = BearerToken("read")
operate_scope = BearerToken("operate")
cancel_scope = BearerToken("submit", "operate")
