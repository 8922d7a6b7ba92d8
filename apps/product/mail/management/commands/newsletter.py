"""``manage.py newsletter``: send a newsletter to every customer, at low priority."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.product.mail.requests import request_newsletter
from apps.product.shop import queries as shop


class Command(BaseCommand):
    """Enqueue one job for each address. They run after all other work of their queue, and are tried once."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the headline, the paragraphs and ``--to``."""
        parser.add_argument("headline", help="subject and headline, for example 'Statements are faster'")
        parser.add_argument("paragraph", nargs="+", help="one paragraph of plain text; as many as you like")
        parser.add_argument("--to", action="append", metavar="ADDRESS", help="only to this address; may be repeated")

    def handle(self, *args: Any, **options: Any) -> None:
        """Enqueue the mails and say how many."""
        addresses = options["to"] or (customer.email for customer in shop.stream_customers())
        count = 0
        for address in addresses:
            request_newsletter(address, options["headline"], options["paragraph"])
            count += 1
        self.stdout.write(f"newsletter: {count} mails enqueued")
