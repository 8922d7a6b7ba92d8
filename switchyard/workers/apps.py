"""Discovery of actors: the module ``actors`` of each installed app, and ``tasks`` that moved here from Celery."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dramatiq
from django.apps import AppConfig, apps
from django.utils.module_loading import autodiscover_modules
from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.errors import SwitchyardError
from switchyard.console.commands import refuse
from switchyard.middleware.errors import DuplicateActor, SendingFile, place, place_of
from switchyard.workers import checks

MODULE = "actors"
# In the source of a module ``tasks`` that declares actors: others are Celery's, or of Django's task API.
COMPAT = b"switchyard.compat"


def declare_actors() -> None:
    """Import the modules of actors of each installed app, which declare them with the broker.

    Raises:
        DuplicateActor: two of them have one name.
        SendingFile: a module sends a message while it is imported.
        SwitchyardError: one is declared wrongly.
    """
    try:
        with no_sends(dramatiq.get_broker()):
            autodiscover_modules(MODULE)
            for name in _moved_modules():
                import_module(name)
    except ValueError as error:
        if (duplicate := _duplicate(error)) is None:
            raise
        raise duplicate from error


def _moved_modules() -> Iterator[str]:
    """Yield the module ``tasks`` of each app in which it, or a file of the package, names ``switchyard.compat``."""
    for app in apps.get_app_configs():
        files = [Path(app.path, "tasks.py"), *Path(app.path, "tasks").rglob("*.py")]
        if any(file.is_file() and COMPAT in file.read_bytes() for file in files):
            yield f"{app.name}.tasks"


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


def _globals_of(function: Callable[..., Any]) -> object:
    return getattr(inspect.unwrap(function), "__globals__", function)


class WorkersConfig(AppConfig):
    """App that declares every actor in every process of the yard, and registers the system checks."""

    name = "switchyard.workers"
    label = "switchyard_workers"
    verbose_name = "Workers"

    def ready(self) -> None:
        """Declare all actors; one that is declared wrongly stops the process with exit 78."""
        try:
            declare_actors()
        except SwitchyardError as error:
            refuse(str(error))
        checks.register_all()
