"""Run by a test in a process of its own, patched: slow and endless servers beside a healthy one, all in greenlets."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

from apps.outbound.errors import OutboundError  # noqa: E402
from apps.outbound.http import send  # noqa: E402
from tests.waiting import wait_for  # noqa: E402

begun: list[str] = []


def ended(url: str, deadline_s: float) -> tuple[str, float]:
    begun.append(url)
    started = time.monotonic()
    try:
        outcome = str(send("POST", url, body=b"{}", deadline_s=deadline_s, max_bytes=65536).status)
    except OutboundError as error:
        outcome = type(error).__name__
    return outcome, time.monotonic() - started


def main(healthy: str, hostile: list[str]) -> None:
    alone = [ended(healthy, 5) for _ in range(40)]
    crowd = [gevent.spawn(ended, url, 1.0) for url in hostile]
    wait_for(lambda: set(begun) >= set(hostile))
    beside = [ended(healthy, 5) for _ in range(40)]
    gevent.joinall(crowd)
    print(json.dumps({"alone": alone, "beside": beside, "hostile": [each.value for each in crowd]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
