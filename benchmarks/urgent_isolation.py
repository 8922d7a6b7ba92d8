"""Does a saturated slow pool delay urgent work?

200 password resets over 20 s, once beside an idle slow pool and once while every slot of it renders statements from
a deep backlog; both again, alternating. Printed: enqueue→start, p50 and p99 in ms, and the ratio of the medians of
the p99s; and by the server's own account what held it up for more than 20 ms in each run, such as its disk. Exits 1
when the ratio is over 1.5.

    python -m benchmarks.urgent_isolation [--rounds 3] [--resets 200] [--seconds 20] [--json FILE]
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.throwaway_yard import ThrowawayYard, throwaway_yard, until

TARGET = 1.5
STALL_MS = 20


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--resets", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    with throwaway_yard(SWITCHYARD_LOG_FORMAT="json") as yard:
        _start(yard)
        runs: dict[str, list[list[float]]] = {"idle": [], "saturated": []}
        stalls: dict[str, list[dict[str, int]]] = {"idle": [], "saturated": []}
        _resets(10, 1.0)  # warm-up of connections and caches
        for _ in range(asked.rounds):
            _stalls()
            runs["idle"].append(_resets(asked.resets, asked.seconds))
            stalls["idle"].append(_stalls())
            backlog = _saturate(yard)
            _stalls()
            runs["saturated"].append(_resets(asked.resets, asked.seconds))
            stalls["saturated"].append(_stalls())
            _empty(backlog)

    figures = {name: _figures(waits) for name, waits in runs.items()}
    ratio = figures["saturated"]["p99_ms"] / figures["idle"]["p99_ms"]
    for name, row in figures.items():
        print(
            f"{name:>10}  p50 {row['p50_ms']:7.1f} ms   p99 {row['p99_ms']:7.1f} ms   p99 of each run {row['p99s_ms']}"
        )
        print(f"{'':>10}  the server was held up, ms at most: {stalls[name]}")
    print(f"ratio of p99: {ratio:.2f} (target at most {TARGET})")
    if asked.json:
        asked.json.write_text(
            json.dumps({"figures": figures, "stalls": stalls, "ratio": ratio, "target": TARGET}, indent=2) + "\n"
        )
    return 0 if ratio <= TARGET else 1


def _start(yard: ThrowawayYard) -> None:
    import django

    os.environ["SWITCHYARD_SMTP_URL"] = f"smtp://{yard.start_mail_sink()}"
    yard.start("runpools", "urgent", "slow", ready="pools: all ready")
    django.setup()


def _resets(count: int, seconds: float) -> list[float]:
    from apps.mail.actors import send_password_reset
    from switchyard.jobs.services import submit

    ids, started = [], time.monotonic()
    for number in range(count):
        due = started + number * seconds / count
        time.sleep(max(due - time.monotonic(), 0))
        ids.append(submit(send_password_reset, kwargs={"to": f"person{number}@customers.example"}))
    until(lambda: _record(ids[-1]).started_at, timeout_s=60, what="the last reset's start")
    until(lambda: all(_record(job_id).started_at for job_id in ids), timeout_s=60, what="every reset's start")
    return [_record(job_id).started_at - _record(job_id).enqueued_at for job_id in ids]


def _stalls() -> dict[str, int]:
    """Return the latency events of the server since the last call with their maxima in ms, and reset them."""
    from switchyard.broker.interface import facilities

    client: Any = facilities().records.calls.client
    latest = client.execute_command("LATENCY", "LATEST")
    client.config_set("latency-monitor-threshold", STALL_MS)
    client.execute_command("LATENCY", "RESET")
    return {str(name, "utf-8"): most_ms for name, _, _, most_ms, *_ in latest}


def _saturate(yard: ThrowawayYard) -> list[str]:
    """Enqueue statements that never end, and return their ids once they hold every slot."""
    from apps.reports.actors import generate_report
    from apps.shop.queries import months_with_invoices
    from switchyard.broker.interface import facilities
    from switchyard.jobs.services import submit

    months = list(months_with_invoices())
    ids = [
        submit(generate_report, kwargs={"customer_id": number % 300 + 1, "month": str(months[number % len(months)])})
        for number in range(20_000)
    ]
    until(lambda: facilities().transport.stats("slow").live.running == 2, timeout_s=30, what="both slow slots held")
    return ids


def _empty(backlog: list[str]) -> None:
    """Check that the slots were held to the end, then cancel the rest."""
    import dramatiq

    from switchyard.broker.interface import facilities

    left = facilities().transport.stats("slow").live.waiting
    if left == 0:
        raise RuntimeError(f"the slow pool ran dry: {len(backlog)} statements were too few; its slots were not held")
    dramatiq.get_broker().flush("slow")
    until(lambda: facilities().transport.stats("slow").live.waiting == 0, timeout_s=30, what="an idle slow pool")


def _record(job_id: str) -> Any:
    from switchyard.broker.interface import facilities

    record = facilities().records.read(job_id)
    if record is None:
        raise RuntimeError(f"job {job_id} has no record")
    return record


def _figures(runs: list[list[float]]) -> dict[str, Any]:
    p99s = [_quantile(waits, 0.99) for waits in runs]
    return {
        "p50_ms": statistics.median(_quantile(waits, 0.5) for waits in runs),
        "p99_ms": statistics.median(p99s),
        "p99s_ms": p99s,
    }


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


if __name__ == "__main__":
    sys.exit(main())
