"""The newest Django: the wheel leaves it as it was, and a project on it is checked, works and shows its pages."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import AWAY, Environment, uv
from tests.integration.wheel.hosts import Host, write_host
from tests.waiting import wait_for

NEWEST, LOCK = REPOSITORY / "requirements-newest.txt", REPOSITORY / "requirements-dev.txt"
PYTHONS = ("3.13", "3.12")  # the newest Django needs the last of them
PINNED = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?(==[^\\\n]+)", re.MULTILINE)


class LeftOut(Exception):
    """This machine has not what the newest pair needs; the text says what."""


def newest_python() -> Path:
    """Return the newest interpreter of this machine that the newest Django admits.

    Raises:
        LeftOut: there is none on PATH, nor among those of pyenv.
    """
    for version in PYTHONS:
        for candidate in _candidates(version):
            command = [candidate, "-c", "import sys; print(sys.version_info[:2], sys.executable)"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            shown, _, program = done.stdout.strip().rpartition(" ")
            if shown == f"({version.replace('.', ', ')})":  # a shim of pyenv may have no such version
                return Path(program)
    raise LeftOut(f"no Python {' or '.join(PYTHONS)} on PATH or in ~/.pyenv/versions")


def _candidates(version: str) -> Iterator[str]:
    if (on_path := shutil.which(f"python{version}")) is not None:
        yield on_path
    for folder in sorted(Path.home().glob(f".pyenv/versions/{version}.*"), reverse=True):
        yield str(folder / "bin/python")


def newest_django() -> str:
    return dict(PINNED.findall(NEWEST.read_text()))["django"].strip(" =")


def install_django(python: Path, folder: Path) -> Environment:
    """Return a new environment that has the newest Django alone.

    Raises:
        LeftOut: the index of packages does not answer.
    """
    uv("venv", "--quiet", "--python", python, folder)
    # Asked for again although it may be in the cache: what comes next is red when the index is away.
    locked = ("--refresh-package", "django", "--require-hashes", "-r", str(NEWEST))
    try:
        uv("pip", "install", "--quiet", "--python", folder / "bin/python", *locked)
    except AssertionError as error:
        if AWAY.search(str(error)) is None:
            raise
        raise LeftOut(f"the index of packages does not answer: {str(error).strip().splitlines()[-1]}") from error
    return Environment(folder)


def install_wheel(environment: Environment, wheel: Path, *extras: str) -> None:
    """Install the wheel as a host does, with the locked versions of what it brings."""
    own = dict(PINNED.findall(NEWEST.read_text()))
    pins = [f"{name}{version}" for name, version in PINNED.findall(LOCK.read_text()) if name not in own]
    file = environment.folder / "pins.txt"
    file.write_text("\n".join(pins))
    wanted = ("--constraints", str(file), f"switchyard[{','.join(extras)}] @ {wheel.as_uri()}")
    uv("pip", "install", "--quiet", "--python", environment.python, *wanted)


pytestmark = pytest.mark.timeout(900)  # downloads, builds, installs and starts processes, beside other tests

SETTINGS = """
del EMAIL_TIMEOUT
MAILERS = {"default": {
    "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
    "OPTIONS": {"file_path": BASE_DIR / "mails"},
}}
TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend"}}
INSTALLED_APPS += ["news"]
MIDDLEWARE += ["switchyard.api.middleware.problem_documents"]
"""
NEWS = {
    "news/actors.py": """
import dramatiq
from django.core.mail import send_mail

@dramatiq.actor
def welcome(address: str) -> None:
    send_mail("Welcome", "Good to have you with us.", "news@example.com", [address])
""",
    "news/tasks.py": """
from django.tasks import task

@task
def shout(word):
    return word.upper()
""",
}
SEND = """
from news.actors import welcome
from news.tasks import shout
welcome.send("ada@example.com")
print(shout.enqueue("hello").id)
"""
RESULT = "from news.tasks import shout; found = shout.get_result('{id}'); print(found.status, found.return_value)"


@pytest.fixture(scope="module")
def newest(request, tmp_path_factory):
    """The newest Django, and the wheel that was installed beside it."""
    try:
        environment = install_django(newest_python(), tmp_path_factory.mktemp("newest") / "venv")
    except LeftOut as reason:
        pytest.skip(str(reason))
    install_wheel(environment, request.getfixturevalue("wheel"), "api", "embedded")
    return environment


def test_the_wheel_leaves_django_as_it_was(newest, tmp_path):
    printed = newest.run(
        "-c", "import django, switchyard; print(django.__version__, switchyard.__file__)", cwd=tmp_path
    )

    version, _, place = printed.partition(" ")
    assert version == newest_django()
    assert place.startswith(str(newest.folder))


def test_a_project_is_checked_works_and_shows_its_pages(newest, broker_url, tmp_path):
    host = Host(newest, write_host(tmp_path, NEWS, last=SETTINGS), broker_url)

    def ended() -> bool:
        jobs = json.loads(host.manage("switchyard", "jobs", "list", "--json"))["jobs"]
        return [job["state"] for job in jobs] == ["succeeded"] * 2

    assert "System check identified no issues" in host.python("-W", "error", "-m", "django", "check")
    assert "No changes detected" in host.manage("makemigrations", "--check", "--dry-run")
    host.manage("migrate")
    task_id = host.manage("shell", "-c", SEND).splitlines()[-1]
    with host.running_pools() as pools:
        wait_for(lambda: list(tmp_path.glob("mails/*")), timeout_s=120)
        wait_for(ended, timeout_s=120)
        pages = host.room()
    assert pools.returncode == 0
    assert "Good to have you with us." in "".join(mail.read_text() for mail in (tmp_path / "mails").iterdir())
    assert "SUCCESSFUL HELLO" in host.manage("shell", "-c", RESULT.format(id=task_id))
    assert len(pages) > 8
    assert [line for line in pages if " 200 " not in line or not line.endswith("False")] == []
