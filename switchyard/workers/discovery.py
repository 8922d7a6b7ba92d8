"""Discovery of actors: the module ``actors`` of each installed app."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
from django.apps import apps
from django.utils.module_loading import autodiscover_modules
from dramatiq.actor import Actor
from dramatiq.broker import Broker
from periodiq import CronSpec

from switchyard import __name__ as library
from switchyard.broker.interface import Facilities
from switchyard.middleware.errors import DuplicateActor, SendingFile
from switchyard.middleware.places import place, place_of

MODULE = "actors"
DECORATOR = 'write @dramatiq.actor(queue_name="default")'
CRON = 'a schedule has five fields, minute, hour, day, month and weekday: write cron("0 2 * * *")'
# Beginnings of what is raised about a queue's name: a text that cannot be one, and another type.
NO_QUEUE_NAME = ("Queue names must", "expected string or bytes-like object")
UNKNOWN_OPTIONS = "The following actor options are undefined"
ACTOR_FILE = Actor.__init__.__code__.co_filename
LIBRARY_FILES = frozenset({ACTOR_FILE, CronSpec.parse.__func__.__code__.co_filename})
# Python's words for a use of what is only just being imported, and for a decorator that was called once too often.
CIRCULAR = re.compile(r"[^']*'([\w.]+)'.*\(most likely due to a circular import\)")
CALLED_TWICE = "actor.<locals>.decorator() missing"
# Names that somebody looks for in Dramatiq -> what to write.
ABSENT_NAME = re.compile(r"cannot import name '(\w+)' from 'dramatiq'")
NAMES_ELSEWHERE = {
    "cron": "a schedule is periodiq's: write from periodiq import cron",
    **dict.fromkeys(("task", "shared_task", "job"), f"an actor is declared with Dramatiq's own decorator: {DECORATOR}"),
}
OTHER_LIBRARIES = frozenset({"celery", "rq", "django_rq", "huey", "procrastinate"})

_loaded: set[str] = set()


def declare_actors() -> None:
    """Import the module of actors of each installed app, which declares them with the broker.

    Raises:
        DuplicateActor: two of them have one name.
        SendingFile: a module sends a message while it is imported.
        SwitchyardError: one is declared wrongly.
    """
    try:
        with no_sends(dramatiq.get_broker()):
            autodiscover_modules(MODULE)
    except ValueError as error:
        if (duplicate := _duplicate(error)) is None:
            if remedy := _remedy(error):
                error.add_note(remedy)
            raise
        raise duplicate from error
    except (LookupError, TypeError, AttributeError, ImportError) as error:
        if remedy := _remedy(error):
            error.add_note(remedy)
        raise
    _loaded.update(path for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None)))


def is_discovered(file: Path) -> bool:
    """Return whether a file was imported with the actors, in every process that declares them."""
    return str(file) in _loaded


@contextlib.contextmanager
def no_sends(broker: Broker) -> Iterator[None]:
    """Refuse messages that the code of a module sends: each process that imports it would send them once more."""

    def refusing(send: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **options: Any) -> Any:
            frame = inspect.currentframe()
            while frame is not None and frame.f_code.co_name != "<module>":
                frame = frame.f_back
            if frame is None or frame.f_globals.get("__name__") == "__main__":  # another thread, or a script
                return send(*args, **options)
            raise SendingFile(place(frame.f_code.co_filename, frame.f_lineno))

        return refuse

    sends = [name for name in ("enqueue", "enqueue_many") if hasattr(broker, name)]
    patched = {name: vars(broker)[name] for name in sends if name in vars(broker)}  # by a tracer for example
    for name in sends:
        setattr(broker, name, refusing(getattr(broker, name)))
    try:
        yield
    finally:
        for name in sends:
            if name in patched:
                setattr(broker, name, patched[name])
            else:
                delattr(broker, name)


def _duplicate(error: ValueError) -> DuplicateActor | None:
    """Return the error for an actor that Dramatiq refused for its name, with both places; Dramatiq names none."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code is not Actor.__init__.__code__:
        return None
    given = step.tb_frame.f_locals
    name, first = given["actor_name"], given["broker"].actors.get(given["actor_name"])
    if first is None:
        return None
    # A file under two names has two modules, and so two dictionaries of globals.
    one_module = _globals_of(first.fn) is _globals_of(given["fn"])
    return DuplicateActor(name, place_of(first.fn), place_of(given["fn"]), one_module=one_module)


def _remedy(error: Exception) -> str:
    """Return what to write, and where, for a mistake that a library answers with an error about its own code."""
    steps = list(traceback.walk_tb(error.__traceback__))
    inner = steps[-1][0].f_code
    remedy = ""
    if inner is CronSpec.parse.__func__.__code__:
        remedy = CRON
    elif isinstance(error, TypeError) and str(error).startswith("cron() got an unexpected keyword argument"):
        remedy = f"a schedule is one text, in UTC, and takes no other zone; {CRON}"
    elif isinstance(error, TypeError) and str(error).startswith("Actor.__init__() missing"):
        remedy = f"the decorator is dramatiq.actor, in lower case: {DECORATOR}"
    elif isinstance(error, TypeError) and str(error).startswith(CALLED_TWICE):
        remedy = f"leave out the second (): {DECORATOR}"
    elif circular := CIRCULAR.match(str(error)):
        remedy = f"this imports a file that imports this one: import {circular[1]} inside the function that needs it"
    elif isinstance(error, AttributeError) and inner.co_filename == ACTOR_FILE and "'__name__'" in str(error):
        text = isinstance(error.obj, str)
        remedy = (
            f"arguments of the decorator have names: {DECORATOR}" if text else f"an actor is a function: {DECORATOR}"
        )
    elif inner.co_filename == ACTOR_FILE and str(error).startswith(NO_QUEUE_NAME):
        remedy = f"queue_name is the name of a queue in the topology, as text: {DECORATOR}"
    elif inner.co_filename == ACTOR_FILE and str(error).startswith(UNKNOWN_OPTIONS) and (kind := _foreign_broker()):
        remedy = (
            f"DRAMATIQ_BROKER in the settings names a {kind}, which has no options of {library}'s: remove it, "
            f'or set it to {{"BROKER": "{library}.wiring.build_broker"}}'
        )
        if not apps.is_installed("django_dramatiq"):
            remedy = f"no app of INSTALLED_APPS builds the broker: write INSTALLED_APPS += {library}.apps()"
    elif isinstance(error, ModuleNotFoundError) and error.name in OTHER_LIBRARIES:
        remedy = f"an actor is declared with Dramatiq: {DECORATOR}"
    elif isinstance(error, ImportError) and (absent := ABSENT_NAME.match(str(error))):
        remedy = NAMES_ELSEWHERE.get(absent[1], "")
    if not remedy:
        return ""
    frame, line = next(step for step in reversed(steps) if step[0].f_code.co_filename not in LIBRARY_FILES)
    return f"{place(frame.f_code.co_filename, line)}: {remedy}"


def _foreign_broker() -> str:
    """Return the class of a broker that this library has not built, else ""."""
    broker = dramatiq.get_broker()
    return "" if isinstance(getattr(broker, "switchyard", None), Facilities) else type(broker).__name__


def _globals_of(function: Callable[..., Any]) -> object:
    return getattr(inspect.unwrap(function), "__globals__", function)
