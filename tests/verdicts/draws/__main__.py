"""Random situations of a yard, of which the first cause that ``diagnose`` names is compared with the made one.

A run that is repeated goes on where its log ends.
"""

from __future__ import annotations

import argparse
import os
import sys

import pytest

parser = argparse.ArgumentParser(prog="python -m tests.verdicts.draws", description=__doc__)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--count", type=int, default=100)
parser.add_argument("--log", required=True, help="a line of JSON for each situation")
given = parser.parse_args()
os.environ |= {"DRAWS_SEED": str(given.seed), "DRAWS_COUNT": str(given.count), "DRAWS_LOG": os.path.abspath(given.log)}
sys.exit(pytest.main(["-q", "-s", "-m", "long", f"{os.path.dirname(__file__)}/test_draws.py"]))
