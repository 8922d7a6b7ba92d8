"""``manage.py switchyard createtoken``: create an API token and print its plain form, once."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from switchyard.api.models import SCOPES
from switchyard.api.tokens import create_token
from switchyard.audit.services import Who, act
from switchyard.console.commands import WRONG_ARGUMENTS, PrintingCommand, as_command_error

EXAMPLES = """examples:
  manage.py switchyard createtoken --user ada --scopes submit,read --name 'billing system'"""


class Command(PrintingCommand):
    help = "Make an API token for a user and print it. It cannot be shown again."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--user", required=True, metavar="NAME", help="user name of the owner")
        parser.add_argument("--scopes", required=True, metavar="LIST", help=f"comma-separated: {', '.join(SCOPES)}")
        parser.add_argument("--name", default="", help="description, such as where the token is used")

    def handle(self, *args: Any, user: str, scopes: str, name: str, **options: Any) -> None:
        with as_command_error("token"):
            self._make(user, scopes, name)

    def _make(self, user: str, scopes: str, name: str) -> None:
        users = get_user_model()
        try:
            owner = users._default_manager.get_by_natural_key(user)
        except users.DoesNotExist as error:
            raise CommandError(f"--user: no user is named {user!r}; add one with manage.py createsuperuser") from error
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        try:
            detail = {"name": name, "scopes": wanted, "owner": user}
            with act("token.create", who=Who.of_command(), detail=detail) as entry:
                token, plain = create_token(owner=owner, scopes=wanted, name=name or f"made for {user} by command")
                entry.count, entry.target = 1, token.prefix
        except ValidationError as error:
            raise CommandError("; ".join(error.messages), returncode=WRONG_ARGUMENTS) from error
        self.answer(plain, {"token": plain, "prefix": token.prefix, "scopes": token.scopes})
