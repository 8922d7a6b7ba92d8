"""Under gevent's patches the same limits hold, and a slow server delays no other request."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.outbound.listener import answering, listening
from tests.integration.outbound.test_hostile_servers import ENDLESS, SLOW, one_byte_of_tls, silent

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("longest_s", "usual_s"), [(8.0, 1.0), pytest.param(2.5, 0.25, marks=pytest.mark.long)])
def test_fifty_hostile_servers_end_in_time_and_do_not_slow_a_healthy_one(longest_s: float, usual_s: float) -> None:
    acts = [*SLOW.values(), *ENDLESS.values()] * 2 + [silent] * 6
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(listening(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
        hostile = [stack.enter_context(listening(act)) for act in acts]
        handshakes = [stack.enter_context(listening(act)) for act in (silent, one_byte_of_tls)]
        everyone = [healthy, *hostile, *handshakes]
        urls = [each.url for each in hostile] + [each.url.replace("http:", "https:") for each in handshakes]

        allowed = {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": " ".join(f"127.0.0.1:{each.port}" for each in everyone)}

        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.outbound.greenlets", healthy.url, *urls],
            cwd=ROOT, env=os.environ | allowed, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip

    seen = json.loads(done.stdout)
    assert Counter(outcome for outcome, _ in seen["beside"]) == {"200": 40}
    assert {outcome for outcome, _ in seen["hostile"]} <= {"DeadlineExceeded", "TooLarge", "Unreachable"}
    assert Counter(outcome for outcome, _ in seen["hostile"])["DeadlineExceeded"] >= len(SLOW) * 2 + 8
    assert max(seconds for _, seconds in seen["hostile"]) < longest_s
    assert sorted(seconds for _, seconds in seen["beside"])[37] < usual_s
