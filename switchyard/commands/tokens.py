"""``manage.py switchyard tokens``: make, list and revoke API tokens."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from switchyard.api.models import SCOPES, Token
from switchyard.api.tokens import create_token, revoke_token
from switchyard.audit.services import Who, act
from switchyard.console.commands import ActsCommand, table, wrong
from switchyard.console.formatting import plain_values

EXAMPLES = """examples:
  manage.py switchyard tokens create --user ada --scopes submit,read --name 'billing system'
  manage.py switchyard tokens list
  manage.py switchyard tokens revoke 3f9a1c07b2de"""

TITLES = ("prefix", "state", "owner", "scopes", "last used (UTC)", "name")


class Command(ActsCommand):
    help = "Make an API token, list all, or revoke one."
    examples, subject = EXAMPLES, "tokens"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        create = add("create", help="make a token for a user and print it; it cannot be shown again")
        create.add_argument("--user", required=True, metavar="NAME", help="user name of the owner")
        create.add_argument("--scopes", required=True, metavar="LIST", help=f"comma-separated: {', '.join(SCOPES)}")
        create.add_argument("--name", default="", help="description, such as where the token is used")
        add("list", help="print every token, without its secret")
        revoke = add("revoke", help="revoke a token permanently")
        text = "the part between sy_ and the secret, or the whole plain form"
        revoke.add_argument("prefix", metavar="PREFIX", help=text)

    def _create(self, options: dict[str, Any]) -> None:
        user, name, users = options["user"], options["name"], get_user_model()
        try:
            owner = users._default_manager.get_by_natural_key(user)
        except users.DoesNotExist as error:
            raise CommandError(f"--user: no user is named {user!r}; add one with manage.py createsuperuser") from error
        wanted = [scope.strip() for scope in options["scopes"].split(",") if scope.strip()]
        try:
            detail = {"name": name, "scopes": wanted, "owner": user}
            with act("token.create", who=Who.of_command(), detail=detail) as entry:
                token, plain = create_token(owner=owner, scopes=wanted, name=name or f"made for {user} by command")
                entry.target = token.prefix
        except ValidationError as error:
            raise wrong("; ".join(error.messages)) from error
        self.answer(plain, {"token": plain, "prefix": token.prefix, "scopes": token.scopes})

    def _list(self, options: dict[str, Any]) -> None:
        tokens = list(Token.objects.select_related("owner"))
        text = table(TITLES, map(_cells, tokens)) or "No tokens; make one with manage.py switchyard tokens create."
        self.answer(text, list(map(_row, tokens)), indent=2)

    def _revoke(self, options: dict[str, Any]) -> None:
        prefix = options["prefix"].removeprefix("sy_").partition("_")[0]
        try:
            token = revoke_token(prefix, who=Who.of_command())
        except Token.DoesNotExist as error:
            fact = f"token {prefix!r}: no token has this prefix"
            raise CommandError(f"{fact}; see manage.py switchyard tokens list") from error
        self.answer(f"token {token.prefix}: revoked", _row(token), indent=2)


def _cells(token: Token) -> tuple[str, ...]:
    state = "revoked" if token.revoked_at else "usable"
    last_used = f"{token.last_used_at:%Y-%m-%d %H:%M:%S}" if token.last_used_at else "never"
    return token.prefix, state, str(token.owner.get_username()), token.shown_scopes, last_used, token.name


def _row(token: Token) -> dict[str, Any]:
    owner = {"owner": str(token.owner.get_username())}
    times = ("created_at", "last_used_at", "revoked_at")
    return plain_values(token, "prefix", "name") | owner | plain_values(token, "scopes", "rights", *times)
