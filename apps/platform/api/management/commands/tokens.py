"""List API tokens and revoke them."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.platform.api.models import Token
from apps.platform.api.tokens import revoke_token


class Command(BaseCommand):
    help = "List API tokens, or revoke one."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="print every token, without its secret")
        listing.add_argument("--json", action="store_true", dest="as_json", help="print them as JSON")
        revoke = actions.add_parser("revoke", help="make a token useless, for good")
        revoke.add_argument("prefix", help="the part between sy_ and the secret, or all that was printed")

    def handle(self, *args: Any, action: str, as_json: bool = False, prefix: str = "", **options: Any) -> None:
        if action == "list":
            self._list(as_json)
        else:
            self._revoke(prefix)

    def _list(self, as_json: bool) -> None:
        rows = [_row(token) for token in Token.objects.select_related("owner")]
        if as_json:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        for row in rows:
            state = "revoked" if row["revoked_at"] else "usable"
            scopes = ",".join(row["scopes"])
            last_used = row["last_used_at"] or "never used"
            self.stdout.write(f"{row['prefix']}  {state:7}  {row['owner']}  {scopes}  {last_used}  {row['name']}")

    def _revoke(self, given: str) -> None:
        prefix = given.removeprefix("sy_").partition("_")[0]
        try:
            token = revoke_token(prefix)
        except Token.DoesNotExist as error:
            raise CommandError(f"token {prefix!r}: none has this prefix; see manage.py tokens list") from error
        self.stdout.write(f"token {token.prefix}: revoked")


def _row(token: Token) -> dict[str, Any]:
    return {
        "prefix": token.prefix,
        "name": token.name,
        "owner": token.owner.get_username(),
        "scopes": token.scopes,
        "created_at": token.created_at.isoformat(timespec="microseconds"),
        "last_used_at": token.last_used_at and token.last_used_at.isoformat(timespec="microseconds"),
        "revoked_at": token.revoked_at and token.revoked_at.isoformat(timespec="microseconds"),
    }
