"""The arguments of ``bin/test``. As a module it checks them and prints the programs that the run needs."""

import argparse

from tests.runner.parts import GROUPS, PARTS

PROGRAMS = ("promtool", "redis-server", "postgres", "rabbitmq", "pgbouncer", "nginx", "chromium", "ffmpeg")
# Those of parts that run only where they are named.
PROGRAMS_OF_PART = {"pager": ("prometheus",), "containers": ("podman",)}
LONG_PARTS = (
    *("on-postgres", "on-pgbouncer", "cluster-walk", "model", "chaos", "verdicts", "core-alone", "rest"),
    *PROGRAMS_OF_PART,
)
PART_NAMES = tuple(dict.fromkeys((*LONG_PARTS, *PARTS, *GROUPS)))
IMPLIED = {"postgres": ("on-postgres", "pgbouncer"), "pgbouncer": ("on-pgbouncer",), "chromium": ("browser",)}


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Return the options.

    What pytest is to get is in ``pytest``; steps, programs and parts that are left out are in ``without``, and in
    ``left_out`` with the parts of a group: the programs of these are still there for the tests of other parts.
    """
    parser = argparse.ArgumentParser(
        "bin/test",
        allow_abbrev=False,
        description="Prepare .venv and the programs that the tests need, then run every check and every test.",
        epilog="Other arguments are pytest's: a folder, a file, -k, -x. A test that fails beside others and passes "
        "twice alone is UNSTEADY; more than five are a failure. Logs are kept in var/test-logs. Exits with 0, or with "
        "the code of the first failed step; later steps still run.",
    )
    parser.add_argument("--quick", action="store_true", help="linters, types, contracts and unit tests alone")
    parser.add_argument(
        "--long", action="store_true", help="also the chaos, scale and soak runs, and the whole suite on PostgreSQL"
    )
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        choices=PART_NAMES,
        metavar="NAME",
        help="one part, without the checks; may be repeated. With their long tests: cluster-walk, model, chaos, "
        "verdicts, core-alone, pager, containers, and rest (the other long tests). The short ones on a database: "
        "on-postgres, and on-pgbouncer (those marked database). Short ones: "
        f"{', '.join(name for name in (*PARTS, *GROUPS) if name not in LONG_PARTS)}",
    )
    parser.add_argument(
        "--database",
        default="sqlite",
        choices=("sqlite", "postgres", "pgbouncer"),
        help="run the tests on this database; without it on SQLite, and those marked database on PostgreSQL as well",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out a part, a step of the printed table, or all that needs one of " + ", ".join(PROGRAMS),
    )
    options, options.pytest = parser.parse_known_args(given)
    for name in options.without:
        options.without += [implied for implied in IMPLIED.get(name, ()) if implied not in options.without]
    options.left_out = {*options.without, *(part for name in options.without for part in GROUPS.get(name, ()))}
    return options


if __name__ == "__main__":
    found = parse()
    named = (*PROGRAMS, *(program for part in found.part for program in PROGRAMS_OF_PART.get(part, ())))
    print(*(name for name in dict.fromkeys(named) if not found.quick and name not in found.without))
