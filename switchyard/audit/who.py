"""The person behind an act: a user of a page, the owner of a token, or the system user of a command."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth.base_user import AbstractBaseUser

if TYPE_CHECKING:
    from django.http import HttpRequest

LONGEST_NAME = 150


class Who(msgspec.Struct, frozen=True):
    """A person, and the way on which the act came.

    Args:
        name: User name.
        via: ``page``, ``api`` or ``command``.
        token: Public part of the API token, if any.
    """

    name: str
    via: str
    token: str = ""

    @property
    def signature(self) -> str:
        """Name for the history of a row: that of a command's user is marked, ``ada (shell)``."""
        return f"{self.name} (shell)"[:LONGEST_NAME] if self.via == "command" else self.name

    @classmethod
    def of_request(cls, request: HttpRequest) -> Who:
        """Return the owner of a request's token, or else the user who is logged in."""
        token = getattr(request, "auth", None)
        if token is not None and hasattr(token, "prefix"):
            return cls.of_token(token)
        user = getattr(request, "user", None)
        name = user.get_username() if isinstance(user, AbstractBaseUser) else "anonymous"
        return cls(name[:LONGEST_NAME], "page")

    @classmethod
    def of_token(cls, token: Any) -> Who:
        """Return the owner of an API token."""
        return cls(token.owner.get_username()[:LONGEST_NAME], "api", token.prefix)

    @classmethod
    def of_command(cls) -> Who:
        """Return the system user of this process; under ``sudo`` the person who called it."""
        return cls(_system_user()[:LONGEST_NAME], "command")


def _system_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    person = os.environ.get("SUDO_USER", "")
    return f"{person} as {user}" if person and person != user else user
