"""A thousand random situations of a job that has not run."""

import sys
from pathlib import Path

from tests.resumed import main

sys.exit(main("WHY", Path(__file__).with_name("test_why.py"), count=1_000))
