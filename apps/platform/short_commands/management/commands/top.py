"""The command ``top`` under its short name."""

from apps.platform.top.commands.top import Command as Command
