"""The command ``createtoken`` under its short name."""

from apps.platform.api.commands.createtoken import Command as Command
