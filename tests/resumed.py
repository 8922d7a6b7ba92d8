"""Random cases, judged one by one into a log: a run that is repeated goes on where the log ends."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Judge = Callable[[int, int], dict[str, Any]]


def resumed(name: str, judge: Judge, folder: Path, *, count: int, seed: int = 2) -> list[dict[str, Any]]:
    """Return what ``judge`` says of each case by seed and number; ``NAME_SEED`` and so on replace them."""
    seed, count = int(os.environ.get(f"{name}_SEED", seed)), int(os.environ.get(f"{name}_COUNT", count))
    log = Path(os.environ.get(f"{name}_LOG") or folder / "log.jsonl")
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with log.open("a") as out:
        for number in range(len(found), count):
            found.append(judge(seed, number))
            out.write(f"{json.dumps(found[-1])}\n")
            out.flush()
    return found


def main(name: str, test: Path, *, count: int) -> int:
    """Run the long tests of a file, with seed, count and log of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--log", required=True, help="a line of JSON for each case")
    given = parser.parse_args()
    os.environ |= {f"{name}_{part.upper()}": str(value) for part, value in vars(given).items()}
    os.environ[f"{name}_LOG"] = os.path.abspath(given.log)
    return pytest.main(["-q", "-s", "-m", "long", str(test)])
