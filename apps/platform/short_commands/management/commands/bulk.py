"""The command ``bulk`` under its short name."""

from apps.platform.bulk.commands.bulk import Command as Command
