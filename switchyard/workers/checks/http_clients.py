"""Clients of other servers that would wait for ever: HTTP calls without a timeout, mail without one.

Calls are found by reading the project's own source: a missing timeout has no effect until the other server hangs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.utils.module_loading import import_string

from switchyard.conf import switchyard_settings

NEVER = None  # the call takes its timeout by keyword only

# Full name of each call that opens a connection -> position of its timeout argument.
CALLS: dict[str, int | None] = {
    "urllib.request.urlopen": 2,
    "http.client.HTTPConnection": 2,
    "http.client.HTTPSConnection": NEVER,
    "urllib3.request": NEVER,
    "urllib3.PoolManager": NEVER,
    "urllib3.ProxyManager": NEVER,
    "urllib3.HTTPConnectionPool": 2,
    "urllib3.HTTPSConnectionPool": 2,
    "urllib3.connectionpool.HTTPConnectionPool": 2,
    "urllib3.connectionpool.HTTPSConnectionPool": 2,
    "urllib3.connection_from_url": NEVER,
    "httpx.Client": NEVER,
    "httpx.AsyncClient": NEVER,
    **{
        f"{package}.{verb}": NEVER
        for package in ("requests", "httpx")
        for verb in ("get", "post", "put", "patch", "delete", "head", "options", "request")
    },
    "httpx.stream": NEVER,
}
# A requests session takes no timeout itself: every call on it needs one.
SESSIONS = ("requests.Session", "requests.session")
SESSION_VERBS = frozenset(("get", "post", "put", "patch", "delete", "head", "options", "request"))
# One of these in the settings means that somebody sends mail; Django has a default for each.
SMTP_SETTINGS = ("EMAIL_BACKEND", "EMAIL_HOST", "EMAIL_HOST_USER", "EMAIL_PORT")
PACKAGES = (b"urllib", b"requests", b"httpx", b"http.client", b"http import")


def endless_http_calls(folders: list[Path] | None = None) -> list[CheckMessage]:
    """E005: an HTTP call of the project's own code that has no timeout.

    Args:
        folders: Where to look; ``None`` is every installed app and package below ``switchyard_settings().base_dir``.
    """
    found: list[CheckMessage] = []
    for path in sorted(_sources(own_folders() if folders is None else folders)):
        source = path.read_bytes()
        if not any(package in source for package in PACKAGES):
            continue
        for line, call in endless_calls(ast.parse(source, str(path))):
            found.append(
                Error(
                    f"{call} is called without a timeout; if the other side hangs, the slot is lost",
                    hint="Pass timeout= in seconds, or send through switchyard.outbound.http.send, "
                    "which bounds the whole exchange.",
                    obj=f"{path}:{line}",
                    id="switchyard.E005",
                )
            )
    return found


def endless_mail() -> list[CheckMessage]:
    """E006: ``EMAIL_TIMEOUT`` is not set in a project that sends mail through SMTP, so sending may block for ever."""
    timeout = getattr(settings, "EMAIL_TIMEOUT", None)
    if timeout or not _sends_by_smtp():
        return []
    return [
        Error(
            f"EMAIL_TIMEOUT is {timeout!r}, so a mail server that hangs holds its slot for ever",
            hint="Set EMAIL_TIMEOUT to seconds, for example 8, in the settings.",
            obj="settings",
            id="switchyard.E006",
        )
    ]


def _sends_by_smtp() -> bool:
    """Return whether mail goes through SMTP, and the settings, the alerts or the project's own code send some."""
    try:
        backend = import_string(settings.EMAIL_BACKEND)
    except ImportError:  # Django's own error names it, at the first mail
        return False
    if not (isinstance(backend, type) and issubclass(backend, SmtpBackend)):
        return False
    if any(settings.is_overridden(name) for name in SMTP_SETTINGS):  # type: ignore[misc]
        return True
    if any(url.startswith("mailto:") for url in switchyard_settings().alert_urls):
        return True
    return any(b"django.core.mail" in path.read_bytes() for path in _sources(own_folders()))


def own_folders() -> list[Path]:
    """Return the folders of this project's code: installed packages are not checked."""
    base = Path(switchyard_settings().base_dir)
    folders = [base / package for package in ("project", "middleware", "switchyard")]
    folders += [Path(app.path) for app in apps.get_app_configs()]
    return [
        folder
        for folder in folders
        if folder.is_dir() and folder.is_relative_to(base) and "site-packages" not in folder.parts
    ]


def endless_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every call in a module that opens a connection without a time limit."""
    names = dict(_imported(tree))
    sessions = set(_sessions(tree, names))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _full_name(node.func, names)
        if name in CALLS and not _has_timeout(node, CALLS[name]):
            yield node.lineno, name
        elif isinstance(node.func, ast.Attribute) and node.func.attr in SESSION_VERBS:
            owner = node.func.value
            on_session = ast.unparse(owner) in sessions or (
                isinstance(owner, ast.Call) and _full_name(owner.func, names) in SESSIONS
            )
            if on_session and not _has_timeout(node, NEVER):
                yield node.lineno, f"requests.Session.{node.func.attr}"


def _sources(folders: list[Path]) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*.py")}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _sessions(tree: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """Yield the targets of assigned ``requests`` sessions, as source: ``session``, ``self.session``."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            targets, value = [node.target], node.value
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets, value = [node.optional_vars], node.context_expr
        if isinstance(value, ast.Call) and _full_name(value.func, names) in SESSIONS:
            yield from (ast.unparse(target) for target in targets)


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return the full name of a call, such as ``urllib.request.urlopen``, by any imported name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return None
    return ".".join([names[node.id], *reversed(parts)])


def _has_timeout(call: ast.Call, position: int | None) -> bool:
    if position is not None and len(call.args) > position:
        return not _is_none(call.args[position])
    for keyword in call.keywords:
        if keyword.arg == "timeout":
            return not _is_none(keyword.value)
    # ``*args`` and ``**options`` may contain a timeout: such a call is accepted.
    return any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(argument, ast.Starred) for argument in call.args
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
