"""``python -m demo``: see ``bin/demo --help``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from demo.arguments import parse
from demo.check.run import check
from demo.errors import DemoError
from demo.run import run
from demo.stopping import StopRequest
from demo.text import line_console


def main(argv: Sequence[str]) -> int:
    """Run the demo or its check and return the exit code."""
    options = parse(argv)
    # Database, mails and logs hold secrets, and other users may be able to read the state folder.
    os.umask(0o077)
    stop = StopRequest()
    stop.listen()
    console = line_console(sys.stdout)
    try:
        return check(stop, console) if options.check else run(options, stop, console)
    except DemoError as error:
        line_console(sys.stderr).print(f"demo: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
