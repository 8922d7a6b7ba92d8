"""A thousand random situations of a job that has not run; a run that is repeated goes on where its log ends."""

from __future__ import annotations

import argparse
import os
import sys

import pytest

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--count", type=int, default=1_000)
parser.add_argument("--log", required=True, help="a line of JSON for each situation")
given = parser.parse_args()
os.environ |= {"WHY_SEED": str(given.seed), "WHY_COUNT": str(given.count), "WHY_LOG": os.path.abspath(given.log)}
sys.exit(pytest.main(["-q", "-s", "-m", "long", f"{os.path.dirname(__file__)}/test_why.py"]))
