"""The command ``createtoken`` under its short name."""

from switchyard.api.commands.createtoken import Command as Command
