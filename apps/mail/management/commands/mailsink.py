"""``manage.py mailsink``: run a mail server for development that stores every mail as a file."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.mail import mailbox, sink


class Command(BaseCommand):
    """Accept every mail and store it as a file; the mailbox page of the admin shows them."""

    help = __doc__ or ""
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare ``--port`` and ``--dir``; the folder defaults to the one the admin reads."""
        sink.add_arguments(parser, folder=mailbox.folder())

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.DEBUG is False:
            self.stderr.write("mailsink: meant for development; whoever may reach the port can send mail into it")
        try:
            sink.run(options["port"], options["dir"])
        except (OSError, OverflowError) as error:
            raise CommandError(f"mailsink: {error}; choose another --port, 0 takes a free one") from error
