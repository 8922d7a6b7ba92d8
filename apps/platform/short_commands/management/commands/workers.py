"""The command ``workers`` under its short name."""

from apps.platform.operations.commands.workers import Command as Command
