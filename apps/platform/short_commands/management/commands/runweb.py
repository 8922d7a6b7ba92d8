"""The command ``runweb`` under its short name."""

from apps.platform.serving.commands.runweb import Command as Command
