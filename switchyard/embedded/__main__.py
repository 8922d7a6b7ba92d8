"""Run a Valkey server for development until SIGINT or SIGTERM: ``python -m switchyard.embedded [FOLDER]``."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from switchyard.embedded.server import EmbeddedServer, EmbeddedServerFailed

CHECK_EVERY_S = 1.0


def main() -> int:
    """Run the server and return the exit code: 0 after a signal, 1 when the server failed."""
    parser = argparse.ArgumentParser(description="Run a Valkey server for development, until Ctrl-C.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(os.environ.get("SWITCHYARD_STATE_DIR") or "var"),
        help="for the data, and for the socket valkey.sock, where development looks for the broker; "
        "default $SWITCHYARD_STATE_DIR, or var",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on loopback; default a free one")
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _leave)
    folder: Path = arguments.folder
    try:
        server = EmbeddedServer(
            folder / "valkey", port=arguments.port, socket_path=folder / "valkey.sock",
            report=lambda sentence: sys.stderr.write(f"{sentence}\n"),
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    try:
        server.start()
        sys.stdout.write(f"ready: {server.socket_url} and {server.url}\n")
        sys.stdout.flush()
        while server.running:
            time.sleep(CHECK_EVERY_S)
    except EmbeddedServerFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        server.stop()
    sys.stderr.write(f"the server ended by itself; read {server.log_path}\n")
    return 1


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)  # the server stops
    sys.exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
