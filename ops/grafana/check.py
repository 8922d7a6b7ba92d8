"""Check a Grafana dashboard: ``python ops/grafana/check.py dashboard.json`` exits 1 and prints the defects.

Checks for colliding ids and positions, panels without a description, and invalid PromQL. ``promtool`` checks the
queries, each wrapped as a rule.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMNS = 24


def problems(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yield the defects of a dashboard's panels, one sentence each."""
    panels = dashboard["panels"]
    for identity, count in Counter(panel["id"] for panel in panels).items():
        if count > 1:
            yield f"id {identity} is used by {count} panels; give each its own"
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        title, place = panel["title"], panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"{title}: reaches column {place['x'] + place['w']}, there are {COLUMNS}"
        for cell in ((x, y) for x in _span(place, "x", "w") for y in _span(place, "y", "h")):
            other = taken.setdefault(cell, title)
            if other != title:
                yield f"{title}: lies over {other}"
                break
        if panel["type"] != "row" and not panel.get("description"):
            yield f"{title}: has no description; describe what it shows"


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yield every query, with Grafana's variables replaced by values that Prometheus understands."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$queue", ".+").replace("$pool", ".+")


def promtool_errors(queries: list[str]) -> str:
    """Return promtool's errors for the queries; empty when it accepts them all.

    Raises:
        FileNotFoundError: promtool is not installed.
    """
    rules = [{"record": f"dashboard:query:{number}", "expr": query} for number, query in enumerate(queries)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.json"  # JSON is YAML
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
        done = subprocess.run(
            ["promtool", "check", "rules", "--lint=none", str(file)], capture_output=True, text=True, check=False
        )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def main(path: str) -> int:
    """Check one file and print its defects."""
    dashboard = json.loads(Path(path).read_text(encoding="utf-8"))
    queries = list(expressions(dashboard))
    found = list(problems(dashboard))
    if errors := promtool_errors(queries):
        found.append(errors)
    sys.stdout.write("".join(f"{path}: {line}\n" for line in found))
    sys.stdout.write(f"{path}: {len(dashboard['panels'])} panels, {len(queries)} queries, {len(found)} problems\n")
    return 1 if found else 0


def _span(place: dict[str, int], start: str, size: str) -> range:
    return range(place[start], place[start] + place[size])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
