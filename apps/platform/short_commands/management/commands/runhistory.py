"""The command ``runhistory`` under its short name."""

from apps.platform.history.commands.runhistory import Command as Command
