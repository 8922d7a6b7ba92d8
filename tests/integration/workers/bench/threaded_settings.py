"""Settings that start a thread."""

from __future__ import annotations

import threading

from tests.integration.workers.bench.settings import *  # noqa: F403

threading.Thread(target=threading.Event().wait, name="sender of metrics", daemon=True).start()
