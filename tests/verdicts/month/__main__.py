"""A simulated month of a healthy yard: how often something is said of it, and what its facts take in the broker.

python -m tests.verdicts.month --seed 1 --days 30
python -m tests.verdicts.month --memory
"""

import argparse
import tempfile
from pathlib import Path

import django

parser = argparse.ArgumentParser(prog="python -m tests.verdicts.month", description=__doc__)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--days", type=int, default=30)
parser.add_argument("--memory", action="store_true", help="tell what facts take, and simulate nothing")
given = parser.parse_args()
django.setup()

from tests.verdicts.month.simulated_month import sentences, taken_mb  # noqa: E402

if given.memory:
    with tempfile.TemporaryDirectory() as folder:
        minutes, buckets = taken_mb(Path(folder))
    print(f"minutes of 72 h {minutes:.0f} MB, tens of seconds {buckets:.0f} MB")
else:
    said = sentences(given.seed, given.days)
    for at, name, sentence in said:
        print(f"day {at / 86_400:5.2f} {name:28} {sentence}")
    print(f"{len(said)} false sentences in {given.days} days, {len(said) / given.days:.2f} a day")
