"""The runs of pytest that the arguments of ``bin/test`` ask for."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from tests.on_both_databases import PATHS
from tests.runner.lanes import Run
from tests.runner.parts import GROUPS, PARTS, files_of

# In which order they begin: what takes longest first, in pieces where a part is named more than once.
ORDER = (
    *("browser", "chaos", "others", "verdicts", "workers", "hosts", "chaos", "others", "workers", "others", "chaos"),
    *("broker", "rabbitmq", "workers", "clients", "unit", "newest", "cluster", "unit", "model", "images", "core-alone"),
)


class Plan:
    """The runs for some options.

    Args:
        options: As :func:`tests.runner.arguments.parse` returns them.
        root: Folder with ``tests/``.
    """

    def __init__(self, options: Namespace, root: Path) -> None:
        self._options = options
        self._files = files_of(root)
        self._database = options.database
        self._marks = "" if options.long else "not long"
        # Tests that need one of these carry it in their name; those of other programs are found by their fixtures.
        named = ("promtool", "postgres", "pgbouncer", "nginx", "ffmpeg")
        names = " and ".join(f"not {name}" for name in named if name in options.without)
        self._filter = (
            *(("-k", names) if names else ()),
            *(("--ignore=tests/browser",) if "chromium" in options.without else ()),
            *(f"--ignore=tests/addons/{name}" for name in GROUPS["addons"] if name in options.left_out),
        )

    def beside_each_other(self) -> list[Run]:
        options, database = self._options, self._database
        if options.pytest:
            return [self._run("pytest", database, self._marks, *options.pytest)]
        if options.quick:
            unit = [file for files in self._files.values() for file in files if "/unit/" in file]
            return [self._run(f"unit {number + 1}/2", database, self._marks, *unit[number::2]) for number in range(2)]
        runs = self._pieces(PARTS, database, self._marks)
        if database == "sqlite" and "on-postgres" not in options.without:
            files = [f"tests/{path}" for path in PATHS]
            short = [self._run("on-postgres", "postgres", "database and not long", *files)]
            runs += self.named("on-postgres") if options.long else short
        if database == "sqlite" and options.long and "on-pgbouncer" not in options.without:
            runs += self.named("on-pgbouncer")
        return runs

    def named(self, name: str) -> list[Run]:
        """Return the runs of a part: with its long tests, where it has them."""
        given, database = self._options.pytest, self._database
        match name:
            case "on-postgres" if given:
                return [self._run(name, "postgres", "not long", *given)]
            case "on-postgres":
                return self._pieces(PARTS, "postgres", "not long")
            case "on-pgbouncer":
                return [self._run(name, "pgbouncer", "database and not long", "tests", *given)]
            case "cluster-walk":
                return [self._run(name, database, "", "tests/addons/cluster/model/test_walk.py", *given)]
            case "core-alone":
                return [self._run(name, database, "", "tests/addons/test_core_alone.py", *given)]
            case "model" | "chaos" | "verdicts" | "pager" | "containers":
                return [self._run(name, database, "", f"tests/{name}", *given)]
            case "rest":
                named = ("model", "chaos", "verdicts", "pager", "containers", "addons/test_core_alone.py")
                others = [f"--ignore=tests/{path}" for path in named]
                return [self._run(name, database, "long", "tests", *others, *given)]
        return self._pieces(GROUPS.get(name, (name,)), database, self._marks)

    def _pieces(self, parts: Iterable[str], database: str, marks: str) -> list[Run]:
        found = []
        for place, name in enumerate(ORDER):
            count, number = ORDER.count(name), ORDER[:place].count(name)
            files = self._files[name][number::count]
            if name in parts and name not in self._options.left_out and files:
                title = f"{name} {number + 1}/{count}" if count > 1 else name
                found.append(self._run(f"{title} on {database}", database, marks, *files))
        return found

    def _run(self, name: str, database: str, marks: str, *arguments: str) -> Run:
        arguments = (*(("-m", marks) if marks else ()), *self._filter, *arguments)
        return Run(name, arguments, database, own_network=any("/chaos" in argument for argument in arguments))
