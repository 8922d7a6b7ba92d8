"""Modules as they stand in the wheel: every way in which code and text name another module."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.wheel.names import Names
from devtools.wheel.rewrite import AmbiguousRoot, rewrite_module
from devtools.wheel.survivors import in_module, in_text
from devtools.wheel.tree import WheelRefused, write_package
from project.config import BASE_DIR

NAMES = Names(BASE_DIR)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from broker.redis.calls import RedisCalls", "from switchyard.broker.redis.calls import RedisCalls"),
        ("from broker import batch", "from switchyard.broker import batch"),
        ("from middleware import logs as l", "from switchyard.middleware import logs as l"),
        ("from apps.platform import wiring", "from switchyard import wiring"),
        ("from apps.platform.jobs import services", "from switchyard.jobs import services"),
        ("import broker.topology as t, json", "import switchyard.broker.topology as t, json"),
        ("if x:\n    from broker import batch; y = 1", "if x:\n    from switchyard.broker import batch; y = 1"),
        # A migration names a function by its whole path.
        (
            "import apps.platform.api.models\nv = [apps.platform.api.models.validate_scopes]",
            "import switchyard.api.models\nv = [switchyard.api.models.validate_scopes]",
        ),
        ("import broker.batch\nbroker.batch.a()", "import switchyard.broker.batch\nswitchyard.broker.batch.a()"),
        ('execute("apps.platform.workers.child.gevent_main")', 'execute("switchyard.workers.child.gevent_main")'),
        ('name = "apps.platform.jobs"', 'name = "switchyard.jobs"'),
        ('f"apps.platform.{name}.models"', 'f"switchyard.{name}.models"'),
        ('x = ("apps.platform."\n     "jobs")', 'x = ("switchyard."\n     "jobs")'),
        ('"broker.redis_broker.RedisBroker"', '"switchyard.broker.redis_broker.RedisBroker"'),
        ('"middleware.logs"', '"switchyard.middleware.logs"'),
        ('"""See :meth:`~broker.batch.gone`."""', '"""See :meth:`~switchyard.broker.batch.gone`."""'),
        ("# broker/lua/queue, apps/platform/wiring.py.", "# switchyard/broker/lua/queue, switchyard/wiring.py."),
        ('''x = """\nfrom broker import batch\n"""''', '''x = """\nfrom switchyard.broker import batch\n"""'''),
        ('"""\n    >>> from broker.batch import gone"""', '"""\n    >>> from switchyard.broker.batch import gone"""'),
        ('"add it to project/topology.py"', '"add it to the topology"'),
    ],
)  # fmt: skip
def test_reference_is_rewritten(before: str, after: str) -> None:
    rewritten = rewrite_module(before, NAMES)

    assert rewritten == after
    assert in_module(rewritten) == []


@pytest.mark.parametrize(
    "source",
    [
        "def run(broker):\n    return broker.redis.calls",
        "from django.apps import apps\napps.get_model('jobs')",
        '"""Ask the broker. The row stays; broker.actors has it, and so has broker.keys."""',
        '"""It comes\nfrom broker or middleware."""',
        "f'{broker.queue.codec}'\nbroker = 1",
        "call(broker=1, middleware=middleware_of(broker))\nbroker = 2",
        "from . import broker",
        'logger = getLogger("switchyard.broker")',
    ],
)
def test_variable_of_the_same_name_stays(source: str) -> None:
    assert rewrite_module(source, NAMES) == source


def test_path_that_could_be_a_variables_attribute_is_refused() -> None:
    with pytest.raises(AmbiguousRoot, match="import the module with `from` or `as`"):
        rewrite_module("import apps.platform.jobs\ndef f(apps):\n    return apps.platform.jobs", NAMES)


@pytest.mark.parametrize(
    "source",
    [
        "from project.topology import YARD",
        "def f():\n    import apps.product.mail",
        "from apps import platform",
        "from devtools.chaos import plan",
        "def f():\n    return broker.redis.calls",
        'x = "apps.product.mail.actors"',
        'x = f"project.{name}"\ny = "project.asgi"',
        "# see apps/product/mail",
        'x = "middleware/logs.py"',
        'x = """\nfrom broker.batch import gone"""',
        '"""See :class:`broker.interface.Gone`."""',
    ],
)
def test_name_that_only_the_repository_has_is_found(source: str) -> None:
    assert in_module(source)


def test_name_in_a_template_or_a_script_is_found() -> None:
    assert in_text("<p>\n{% include 'apps/product/mail.html' %}") == ["line 2: apps/product/mail.html"]
    assert in_text("a project. The broker/worker pair's") != []
    assert in_text("of this project. The broker ends.") == []


def test_package_with_a_survivor_is_refused_with_every_place(tmp_path: Path) -> None:
    repository, target = tmp_path / "repository", tmp_path / "target"
    for folder in ("broker", "middleware", "apps/platform/jobs"):
        (repository / folder).mkdir(parents=True)
    (repository / "broker/stop.py").write_text("import project.config\n")
    (repository / "apps/platform/jobs/page.html").write_text("see apps/product/\n")
    (repository / "middleware/notes.orig").write_text("left by an editor\n")

    with pytest.raises(WheelRefused) as refused:
        write_package(repository, target)

    assert "broker/stop.py: line 1: import project.config" in str(refused.value)
    assert "apps/platform/jobs/page.html: line 1: apps/product" in str(refused.value)
    assert "middleware/notes.orig: no rule" in str(refused.value)


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    repository, target = tmp_path / "repository", tmp_path / "target"
    for folder in ("broker", "middleware", "apps/platform/broker"):
        (repository / folder).mkdir(parents=True)
        (repository / folder / "a.py").write_text("")

    with pytest.raises(WheelRefused, match=r"another file goes to switchyard/broker/a\.py"):
        write_package(repository, target)


def test_a_short_command_is_called_by_its_name_in_a_host() -> None:
    source = '"run `manage.py broker accept`, then manage.py migrate; manage.py switchyard doctor"'

    expected = source.replace("manage.py broker", "manage.py switchyard broker")
    assert rewrite_module(source, NAMES) == expected
