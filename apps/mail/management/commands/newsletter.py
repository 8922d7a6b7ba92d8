"""``manage.py newsletter``: send a newsletter to every customer, at low priority."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand
from django.core.validators import validate_email

from apps.mail.actors import newsletter
from apps.shop import queries as shop
from switchyard.console.command_errors import as_command_error
from switchyard.console.command_help import show_examples
from switchyard.jobs.services import submit

EXAMPLES = """examples:
  manage.py newsletter 'Statements are faster' 'They take a second now.' --to ada@example.com"""


class Command(BaseCommand):
    """Enqueue one job for each address. They run after all other work of their queue, and are tried once."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the headline, the paragraphs and ``--to``."""
        show_examples(parser, EXAMPLES)
        parser.add_argument(
            "headline", metavar="HEADLINE", help="subject and headline, for example 'Statements are faster'"
        )
        parser.add_argument("paragraph", nargs="+", metavar="PARAGRAPH", help="plain text; as many as you like")
        parser.add_argument(
            "--to", action="append", type=_address, metavar="ADDRESS", help="only to this address; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Enqueue the mails and print their number."""
        addresses = options["to"] or (customer.email for customer in shop.stream_customers())
        content = {"headline": options["headline"], "paragraphs": options["paragraph"]}
        count = 0
        with as_command_error("newsletter"):
            for address in addresses:
                submit(newsletter, kwargs={"to": address, **content})
                count += 1
        self.stdout.write(f"newsletter: {count} mail{'' if count == 1 else 's'} enqueued")


def _address(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError:
        raise ArgumentTypeError(f"{text!r} is no address; give one such as ada@example.com") from None
    return text
