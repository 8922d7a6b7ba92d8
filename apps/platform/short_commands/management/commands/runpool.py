"""The command ``runpool`` under its short name."""

from apps.platform.workers.commands.runpool import Command as Command
