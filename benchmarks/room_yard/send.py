"""``python -m benchmarks.room_yard.send RATE``: send jobs that do nothing, so many a second, until it is terminated."""

import itertools
import sys
import time

import django


def main() -> None:
    """Send."""
    rate = float(sys.argv[1])
    django.setup()
    from benchmarks.room_yard.actors import nothing

    began_s = time.monotonic()
    for number in itertools.count():
        time.sleep(max(began_s + number / rate - time.monotonic(), 0))
        nothing.send(number)


if __name__ == "__main__":
    main()
