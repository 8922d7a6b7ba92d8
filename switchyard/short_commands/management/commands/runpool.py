"""The command ``runpool`` under its short name."""

from switchyard.workers.commands.runpool import Command as Command
