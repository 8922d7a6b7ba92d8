"""The reference lists everything and no more; steps lead from alerts to causes; links resolve and the site is whole."""

import ast
import json
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections import Counter
from dataclasses import fields
from pathlib import Path

import dramatiq
import pytest
import yaml
from django.apps import apps
from django.conf import settings
from django.core.management import get_commands, load_command_class
from django.urls import reverse

from project.urls import PRODUCT_ROUTERS
from switchyard import __version__
from switchyard.api.application import PLATFORM_ROUTERS
from switchyard.broker.admin.purge import PURGED
from switchyard.broker.topology import AlertRule, Dependency, Pool, Queue, RetryPolicy
from switchyard.commands import COMMANDS
from switchyard.commands.management.commands.switchyard import load
from switchyard.conf import KEYS
from switchyard.console import links
from switchyard.console.links import BY_KIND, runbook, runbook_of_alert
from switchyard.dead_letters.views import REASONS
from switchyard.operations.findings.finding import PRECEDENCE
from switchyard.operations.findings.lateness import LATE_WORDS
from switchyard.operations.findings.spending import DATABASE_SLOW, DEPENDENCY_SLOW
from tests.unit.documentation.pages import PAGES, ROOT, anchors, name_of, read

OWN_SOURCES = [
    path
    for folder in ("apps", "demo", "devtools", "middleware", "project", "switchyard")
    for path in (ROOT / folder).rglob("*.py")
]
DECLARED = (AlertRule, Dependency, Queue, RetryPolicy, Pool)
RULES = yaml.safe_load(read("ops/prometheus/rules.yml"))
# Set by Dramatiq's pipelines only.
INTERNAL_OPTIONS = {"pipe_target"}
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
# Of structlog itself, of each line, and of dicts that are passed on.
OF_EACH_LINE = {
    *("event", "level", "logger", "timestamp", "release", "request", "trace_id", "span_id", "attempt", "raised")
}
# Those without any option.
PLAIN = {"runscheduler", "seed"}
LIBRARY = ("middleware", "switchyard")
# Django calls these classes so, in every app.
DJANGO = {"Command"}


def first_column(page: str) -> set[str]:
    """Return the names in backticks in the first column of a page's tables."""
    cells = re.findall(r"^\| ([^|]+) \|", read(page), flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def own_commands() -> set[str]:
    """Return the names behind ``manage.py switchyard``, and the commands of products and development."""
    own = {config.name for config in apps.get_app_configs() if config.name.startswith(("apps.", "devtools"))}
    return {*COMMANDS, *(name for name, app in get_commands().items() if app in own)}


def test_every_key_of_the_librarys_settings_is_described_or_named_as_its_variable():
    described = first_column("docs/reference/environment.md")
    named = {f"SWITCHYARD_{key}": key for key in KEYS} | {"PROMETHEUS_MULTIPROC_DIR": "METRICS_DIR"}

    assert {key for key, variable in KEYS.items() if variable is None} == described & KEYS.keys()
    assert {key: variable for variable in described if (key := named.get(variable))} == {
        key: variable for key, variable in KEYS.items() if variable
    }


def test_every_variable_that_is_read_is_described_and_no_other():
    source = read("project/config.py") + read("switchyard/conf.py")
    variables = set(re.findall(r'"((?:SWITCHYARD|DJANGO)_\w+|DATABASE_\w+)"', source)) | set(KEYS.values()) - {None}

    assert len(variables) > 10
    assert first_column("docs/reference/environment.md") - KEYS.keys() == variables


def test_every_variable_of_the_compose_file_is_in_its_example():
    needed = set(re.findall(r"\$\{(\w+)", read("ops/compose.yaml"))) - {"FORWARDED_ALLOW_IPS"}

    assert needed == set(re.findall(r"^(\w+)=", read("ops/production.env.example"), flags=re.MULTILINE))


def test_every_command_of_ours_is_described():
    described = set(re.findall(r"`(?:manage\.py )?(?:switchyard )?(\w+)", read("docs/reference/commands.md")))

    assert own_commands() - described == set()


@pytest.mark.parametrize(
    ("page", "row", "least"),
    [
        ("docs/reference/commands.md", r"^\| (`[^|]+) \|", 30),
        ("docs/reference/system-checks.md", r"^\| `(switchyard\.[EW]\d{3})`", 10),
    ],
)
def test_no_command_and_no_system_check_is_described_twice(page, row, least):
    rows = re.findall(row, read(page), flags=re.MULTILINE)

    assert len(rows) > least
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ops/prometheus/rules.yml"], ids=name_of)
def test_no_page_and_no_alert_names_a_command_that_does_not_exist(page):
    named = set(re.findall(r"manage(?:\.py)? (?:switchyard )?([a-z]{4,})\b", page.read_text(encoding="utf-8")))

    assert named - set(get_commands()) - own_commands() == set()


def test_every_option_of_an_actor_is_described():
    options = set(dramatiq.get_broker().actor_options) - INTERNAL_OPTIONS

    assert options - first_column("docs/reference/actor-options.md") == set()


def test_every_option_of_the_topology_is_described_with_its_default_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)`", read("docs/reference/topology.md"), flags=re.MULTILINE)
    defaults = {option.name: option.default for kind in DECLARED for option in fields(kind)}

    assert first_column("docs/reference/topology.md") == defaults.keys()
    assert len(rows) > 10
    assert {name: ast.literal_eval(default) for name, default in rows} == {name: defaults[name] for name, _ in rows}


def test_every_system_check_is_described_and_no_other():
    of_core = [path for path in OWN_SOURCES if "addons" not in path.parts]  # the page of each add-on has its own
    known = {found for path in of_core for found in re.findall(r"switchyard\.[EW]\d{3}", path.read_text())}

    assert first_column("docs/reference/system-checks.md") >= known
    assert {name for name in first_column("docs/reference/system-checks.md") if name.startswith("switchyard.")} == known


def test_every_metric_that_ops_asks_for_is_described_and_each_of_those_is_made_somewhere():
    described = {name for name in first_column("docs/reference/metrics.md") if name.startswith("switchyard_")}
    asked = read("ops/prometheus/rules.yml") + read("ops/grafana/dashboard.json")
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"switchyard_[a-z_]+", asked)}
    sources = "".join(path.read_text() for path in OWN_SOURCES if "rendering" not in path.parts)

    assert names - described == set()
    assert {name for name in described if f'"{name.removesuffix("_total")}"' not in sources} == set()


def test_every_alert_is_described_and_no_other():
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    assert {name for name in first_column("docs/how-to/triage.md") if name.startswith("Switchyard")} == alerts


def test_every_address_of_the_api_and_every_reason_of_a_jobs_state_is_described():
    page = read("docs/reference/http-api.md")
    states = page.partition("## States of a job")[2].partition("\n## ")[0]
    others = ("delay", "eta", "rate_limit", "outbox", "parked", "skipped", "max_age", PURGED, "quarantined")

    roots = [path for path, _ in (*PLATFORM_ROUTERS, *PRODUCT_ROUTERS)]
    assert [path for path in roots if f"/api/v1{path}" not in page] == []
    assert [reason for reason in (*others, *REASONS) if f"`{reason}`" not in states] == []


def test_every_direct_dependency_earns_its_line():
    lines = [line for file in ("requirements.in", "requirements-dev.in") for line in read(file).splitlines()]
    names = {re.split(r"[=\[<>]", line)[0].strip().lower() for line in lines if line and line[0] not in "#-"}

    programs = {
        *("promtool", "redis-server", "chromium", "postgres", "rabbitmq", "pgbouncer", "libfaketime", "nginx"),
        "ffmpeg",
    }  # of Debian's packages, in a table of their own
    assert {name.lower() for name in first_column("docs/dependencies.md")} == names | programs


def test_every_field_of_a_log_line_is_described_and_no_other():
    written = set()
    for folder in ("middleware", "switchyard", "apps", "project"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(ast.Attribute(ast.Name("log" | "write"), level)) if level in LEVELS:
                        written |= {keyword.arg for keyword in node.keywords} - {None, "exc_info"}

    assert first_column("docs/reference/log-lines.md") == written | OF_EACH_LINE


def parser_of(command: str) -> ArgumentParser:
    known = load(command) if command in COMMANDS else load_command_class(str(get_commands()[command]), command)
    return known.create_parser("manage.py", command)


def examples_of(command: str) -> list[list[str]]:
    """Return the example calls in a command's help as lists of arguments, without what is said beside them."""
    lines = re.findall(r"^  manage\.py (?:switchyard )?(.+)$", parser_of(command).format_help(), flags=re.MULTILINE)
    return [shlex.split(re.split(r" {2,}", line)[0]) for line in lines]


def subcommands() -> list[tuple[str, str]]:
    parsers = {command: parser_of(command) for command in sorted(own_commands())}
    return [
        (command, part)
        for command, parser in parsers.items()
        for action in parser._actions
        if isinstance(action, _SubParsersAction)
        for part in action.choices
    ]


@pytest.mark.parametrize("command", sorted(own_commands() - PLAIN))
def test_help_shows_examples_that_the_command_takes(command):
    examples = examples_of(command)

    assert examples != []
    for name, *arguments in examples:
        assert name == command
        parser_of(command).parse_args(arguments)  # a wrong one raises CommandError


@pytest.mark.parametrize(("command", "part"), subcommands())
def test_the_reference_names_each_part_of_a_command(command, part):
    assert re.search(rf"`(manage\.py (switchyard )?)?{command} {part}\b|`{part}\b", read("docs/reference/commands.md"))


def terms() -> list[str]:
    """Return the terms of the page's table."""
    table = read("docs/reference/glossary.md").split("\n## Terms\n")[1]
    cells = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, flags=re.MULTILINE)[2:]
    return [term.strip() for cell in cells for term in cell.split(",")]


TERMS = terms()


def sources() -> list[Path]:
    """Return every module and Lua file of the library."""
    found = [path for folder in LIBRARY for kind in ("*.py", "*.lua") for path in (ROOT / folder).rglob(kind)]
    return [path for path in found if "migrations" not in path.parts]


def test_terms_stand_once_and_in_order():
    assert [term for term, count in Counter(TERMS).items() if count > 1] == []
    assert sorted(TERMS, key=str.lower) == TERMS


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_used(term):
    pattern = re.compile(r"[\s_-]?".join(map(re.escape, re.split(r"[\s-]", term))), re.IGNORECASE)

    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in sources())


def test_no_two_public_classes_have_one_name():
    classes = Counter(
        node.name
        for path in sources()
        if path.suffix == ".py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert {name for name, count in classes.items() if count > 1} - DJANGO - set(MIRRORED) == set()


# A row of the database, or the permissions of what has no table, and what it mirrors.
MIRRORED = ("DeadLetter", "Job")
TEXT = read(links.PAGE)
HEADINGS = re.findall(r"^#{2,3} (.+)$", TEXT, flags=re.MULTILINE)
ANCHORS = {heading.lower().replace(" ", "-") for heading in HEADINGS}
LABELS = sorted({*(rank.label for rank in PRECEDENCE), *LATE_WORDS, DATABASE_SLOW, DEPENDENCY_SLOW})
GROUPS = yaml.safe_load(read("ops/prometheus/rules.yml"))["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
TABLES = TEXT.split("## The server")[0]
STEPS = reverse("switchyard-steps")
WEB = f"{settings.SWITCHYARD.public_url}{STEPS}"


def anchor_of(address: str) -> str:
    page, _, anchor = address.partition("#")
    assert page in (STEPS, WEB)
    return anchor


@pytest.mark.parametrize("label", LABELS)
def test_every_label_of_a_verdict_has_its_steps_and_a_link(label):
    anchor = anchor_of(runbook(label))

    assert anchor in ANCHORS and f"[{label}](#{anchor})" in TABLES


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_rule_leads_to_its_steps_and_has_a_row(alert):
    # Prometheus puts the web's own address before it, and this one while it does not know that.
    anchor = anchor_of(re.sub(r"\{\{ with .* else \}\}|\{\{ end \}\}", "", alert["annotations"]["runbook"]))

    assert anchor in ANCHORS
    assert re.search(rf"^\| `{alert['alert']}` \| \[[^]]+\]\(#{anchor}\)", TABLES, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_kind_of_alert_leads_to_its_steps(kind):
    assert anchor_of(runbook_of_alert(kind)) in ANCHORS
    assert runbook_of_alert("of another release") == WEB


def test_a_project_without_the_page_of_steps_is_told_the_documentation(monkeypatch):
    monkeypatch.setattr(links, "steps_url", lambda heading: "")

    assert runbook("No pool") == f"{links.PAGE}#no-pool"


@pytest.mark.parametrize("line", sorted(set(re.findall(r"manage\.py (?:switchyard )?([^`]+)`", TEXT))))
def test_every_command_of_the_page_is_one_that_its_parser_takes(line):
    values = {"POOL": "default", "QUEUE": "default", "OTHER": "slow", "ID": "12", "…": "why", "owner=NAME": "owner=a"}
    command, *arguments = (values.get(word, word) for word in shlex.split(line))

    parser_of(command).parse_args(arguments)  # a wrong one raises CommandError


LINK = re.compile(r"\]\(([^)\s]+)\)")
SWITCHYARD = ROOT / "switchyard"
ROOMS = (
    *("actors", "alerts", "api", "audit", "broker", "bulk", "dead_letters", "frame", "history", "jobs", "middleware"),
    *("operations", "queues", "schedules", "tasks", "testing", "workers"),
)
ORDER = re.compile(r"Files in reading order: (.+?)(?=\n\n|\.\s+Public|\Z)", re.DOTALL)
PAGES_OF_ROOMS = {
    file.parent.relative_to(SWITCHYARD).as_posix(): page
    for file in [SWITCHYARD / "middleware" / "__init__.py", *SWITCHYARD.rglob("__init__.py")]
    if ORDER.search(page := ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_within_the_repository_resolves(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if path == "" else (page.parent / path).resolve()
        assert file.exists(), f"{name_of(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name_of(page)}: no heading {target}"


def test_every_page_can_be_reached_from_the_readme():
    seen: set[Path] = set()
    ahead = [(ROOT / "README.md").resolve()]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8")))
        ahead += [(page.parent / path).resolve() for path in targets if path and not re.match(r"[a-z]+:", path)]

    assert {name_of(page) for page in PAGES} - {name_of(page) for page in seen} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_splits_no_table_names_files_that_exist_and_installs_no_other_switchyard(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:switchyard|middleware|project|apps|devtools)/[\w/]+\.\w+)`", text)

    assert re.findall(r"^\|.*\|\n\n+(\|.*\|)\n(?!\| ?:?-)", text, re.MULTILINE) == []
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert re.findall(r"pip install ['\"]?switchyard.*", text) == []


@pytest.mark.parametrize("room", sorted({*ROOMS, *PAGES_OF_ROOMS}))
def test_a_room_begins_with_its_page_whose_files_are_there(room):
    [order] = ORDER.findall(PAGES_OF_ROOMS[room])
    below = [path for pattern in ("*", "*/*") for path in (SWITCHYARD / room).glob(pattern)]
    names = {path.stem for path in below if path.is_dir() or path.suffix == ".py"}

    assert set(re.findall(r"``(\w+)``", order)) - names == set()
    if room in ROOMS:
        assert "keeps true" in PAGES_OF_ROOMS[room] and "Public" in PAGES_OF_ROOMS[room]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with an older version beside this one; no link in it leads nowhere."""
    folder: Path = tmp_path_factory.mktemp("site")
    for version in ("0.9.0", "0.2.1"):
        (folder / version).mkdir()
        (folder / version / "llms.txt").touch()
    command = [sys.executable, "-m", "docs.site.build", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(180)
def test_each_page_is_in_it_in_its_contents_and_in_the_list_for_programs(site):
    first = (site / __version__ / "README.html").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((\S+)\)", (site / __version__ / "llms.txt").read_text(encoding="utf-8"))

    for page in map(name_of, PAGES):
        html = f"{page.removesuffix('.md')}.html"
        assert (site / __version__ / html).is_file(), page
        assert f"_sources/{page}.txt" in listed, page
        if page not in ("README.md", "SECURITY.md") and not page.startswith("docs/decisions/0"):
            assert f'<a class="reference internal" href="{html}">' in first, page
    assert [path for path in listed if not (site / __version__ / path).is_file()] == []


@pytest.mark.timeout(180)
def test_it_is_searched_and_its_newest_version_shown_beside_the_others(site):
    index = (site / __version__ / "searchindex.js").read_text(encoding="utf-8")

    assert "docs/how-to/requeue-dead-letters" in index
    assert '"requeu":' in index or "requeu:" in index
    assert json.loads((site / "versions.json").read_text()) == [__version__, "0.9.0", "0.2.1"]
    assert f"url={__version__}/README.html" in (site / "index.html").read_text()
