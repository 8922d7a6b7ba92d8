"""The command ``runhistory`` under its short name."""

from switchyard.history.commands.runhistory import Command as Command
