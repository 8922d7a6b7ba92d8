"""Random situations of a yard, of which the first cause that ``diagnose`` names is compared with the made one."""

import sys
from pathlib import Path

from tests.resumed import main

sys.exit(main("DRAWS", Path(__file__).with_name("test_draws.py"), count=100))
