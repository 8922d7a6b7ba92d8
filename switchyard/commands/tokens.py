"""``manage.py switchyard tokens``: list API tokens and revoke them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO, cast

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.api.models import Token
from switchyard.api.tokens import revoke_token
from switchyard.audit.services import Who
from switchyard.console.commands import ActsCommand
from switchyard.middleware.logs import printable

EXAMPLES = """examples:
  manage.py switchyard tokens list
  manage.py switchyard tokens revoke 3f9a1c07b2de"""


class Command(ActsCommand):
    help = "List API tokens, or revoke one."
    examples, subject = EXAMPLES, "tokens"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        add("list", help="print every token, without its secret")
        revoke = add("revoke", help="revoke a token permanently")
        revoke.add_argument(
            "prefix", metavar="PREFIX", help="the part between sy_ and the secret, or the whole plain form"
        )

    def _list(self, options: dict[str, Any]) -> None:
        tokens = list(Token.objects.select_related("owner"))
        width = None if self.stdout.isatty() else 240
        console = Console(file=cast(TextIO, self.stdout), width=width, highlight=False, markup=False, soft_wrap=True)
        if tokens and not self.as_json:
            console.print(_table(tokens))
        text = "" if tokens else "No tokens; make one with manage.py switchyard createtoken."
        self.answer(text, list(map(_row, tokens)), indent=2)

    def _revoke(self, options: dict[str, Any]) -> None:
        prefix = options["prefix"].removeprefix("sy_").partition("_")[0]
        try:
            token = revoke_token(prefix, who=Who.of_command())
        except Token.DoesNotExist as error:
            raise CommandError(
                f"token {prefix!r}: no token has this prefix; see manage.py switchyard tokens list"
            ) from error
        self.answer(f"token {token.prefix}: revoked", _row(token), indent=2)


def _table(tokens: list[Token]) -> Table:
    table = Table("prefix", "state", "owner", "scopes", "last used (UTC)", "name", box=None)
    for token in tokens:
        state = "revoked" if token.revoked_at else "usable"
        name = Text(printable(token.name))  # free text of a user: Text disables markup
        scopes, last_used = (
            token.shown_scopes,
            f"{token.last_used_at:%Y-%m-%d %H:%M:%S}" if token.last_used_at else "never",
        )
        table.add_row(token.prefix, state, str(token.owner.get_username()), scopes, last_used, name)
    return table


def _row(token: Token) -> dict[str, Any]:
    return {
        "prefix": token.prefix,
        "name": token.name,
        "owner": str(token.owner.get_username()),
        "scopes": token.scopes,
        "rights": token.rights,
        "created_at": token.created_at.isoformat(timespec="microseconds"),
        "last_used_at": token.last_used_at and token.last_used_at.isoformat(timespec="microseconds"),
        "revoked_at": token.revoked_at and token.revoked_at.isoformat(timespec="microseconds"),
    }
