"""Add-ons: support for one more kind of server, found by the scheme of an address. The core has no word of any.

Each package below ``switchyard/addons/`` is one, and each entry point of the group ``switchyard.addons`` that another
distribution installs: both name an :class:`Addon`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules, resolve_name
from typing import Any, Final

import msgspec

FOLDER: Final = "switchyard.addons"


class Addon(msgspec.Struct, frozen=True, kw_only=True):
    """An add-on, as it declares itself. A hook is the name of an object, ``package.module:name``; "" is none.

    Hooks are resolved where they are used: a process that does not need one loads neither its module nor a client.

    Args:
        name: Begins the codes of its findings.
        title: Its server in sentences.
        schemes: Of the addresses that it takes over.
        package: Modules of its client, requirement and extra of the wheel; all "" where the library's own suffices.
        settings: Keys of ``SWITCHYARD``, each with its environment variable.
        keeps_queues: Messages are on its server. Records, limits and locks are on a Redis server beside it.
        tells_ages: Its server tells for how long a message has waited.
        read: Hook ``(name, url, given, *, debug) -> dict``: validates the address and the add-on's settings.
        place: Hook: makes broker and transport, as :func:`switchyard.wiring.on_redis` does.
        check: Hook ``(own) -> list[CheckMessage]``: mistakes of the declared yard.
        look: Hook ``() -> Iterator[Finding]``: findings about its server, in the group of the broker.
        rights: Hook ``(roles) -> roles``: changes what the users of the Redis server may do.
        stock: Hook ``(url) -> StockQueues``: what stock Dramatiq left at such an address, for an import.
        connect: Hook: makes a client of the broker, as :func:`switchyard.broker.redis.connections.connect` does.
        calls: Hook: class of the access over that client, where keys lie at several places.
        servers: Hook: class of the servers behind that access, as :class:`switchyard.broker.health.servers.Servers`.
        barrier: Hook: class of the flush before acknowledgements, where one place may be away while others answer.
        hosts: Hook ``(url) -> set``: hosts of an address of the broker; raises ``UnusableAddress``.
        look_at: Hook ``(servers, clients) -> Iterator[Finding]``: findings about several servers together.
        judge: Hook ``(info) -> list[ServerFinding]``: mistakes of a server by itself, also at another address.
        words: Hook: code -> :class:`switchyard.operations.findings.finding.Words` of findings about the broker.
        explain: Hook ``(group, error, program) -> Finding | None``: the finding for an error of its own.
        options: Hook ``(url, step) -> str``: options of the server's command line client that lead there.
        commands: Commands of the Redis server that every user of a yard needs.
        fails_over: A replica takes over from a server that is down.
    """

    name: str
    title: str
    schemes: tuple[str, ...]
    package: tuple[str, str, str] = ("", "", "")
    settings: Mapping[str, str] = msgspec.field(default_factory=dict)
    keeps_queues: bool = False
    tells_ages: bool = True
    read: str = ""
    place: str = ""
    check: str = ""
    look: str = ""
    rights: str = ""
    stock: str = ""
    connect: str = ""
    calls: str = ""
    servers: str = ""
    barrier: str = ""
    hosts: str = ""
    look_at: str = ""
    judge: str = ""
    words: str = ""
    explain: str = ""
    options: str = ""
    commands: tuple[str, ...] = ()
    fails_over: bool = False

    def load(self, hook: str) -> Any:
        """Return the object that a hook names, or ``None`` where the add-on has none."""
        target = getattr(self, hook)
        return resolve_name(target) if target else None

    def call(self, hook: str, otherwise: Any, *arguments: Any) -> Any:
        """Call the function that a hook names; without one return ``otherwise``."""
        function = self.load(hook)
        return otherwise if function is None else function(*arguments)


def addons() -> Iterator[Addon]:
    """Yield every add-on: those of the library, then those that other distributions install."""
    yield from _own()
    yield from _installed()


def addon_for(scheme: str) -> Addon | None:
    """Return the add-on of a scheme, or ``None``. Other distributions are asked for one that the library lacks."""
    return next((found for found in addons() if scheme.lower() in found.schemes), None)


@cache
def _own() -> tuple[Addon, ...]:
    if find_spec(FOLDER) is None:
        return ()
    folder = import_module(FOLDER)
    return tuple(import_module(f"{FOLDER}.{found.name}").ADDON for found in iter_modules(folder.__path__))


@cache
def _installed() -> tuple[Addon, ...]:
    return tuple(found.load() for found in entry_points(group=FOLDER))
