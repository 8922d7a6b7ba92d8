"""The yard that a setting names. What is wrong in its file is answered with the file and line."""

from __future__ import annotations

import re
from dataclasses import fields
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from django.utils.module_loading import import_string

from switchyard.broker.errors import SwitchyardError
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from switchyard.middleware.places import place
from switchyard.setting_values import InvalidSetting

DECLARED = {kind.__name__: kind for kind in (Pool, Queue, RetryPolicy, Yard)}
# Python's own words for a call of one of them that it refuses, and for what a misspelt and a missing option are in it.
REFUSED = re.compile(rf"({'|'.join(DECLARED)})\.__init__\(\) (.*)")
MISSPELT = re.compile(r"got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"missing \d+ required positional arguments?: ")
MOST_CORES = 1_024


def yard_of(name: str, value: Any) -> Yard:
    """Return the yard that a setting holds, or names by its dotted path; ``InvalidSetting`` where it is wrong."""
    if isinstance(value, str):
        value = _imported(name, value)
    if not isinstance(value, Yard):
        raise InvalidSetting(
            name, f"is a {type(value).__name__}, not a Yard", "declare one with Yard(queues=…, pools=…)"
        )
    return value


def on_cores(yard: Yard, name: str, value: Any) -> Yard:
    """Return a yard in which ``processes="cores"`` stands for a number; "" leaves that to the machine."""
    if value == "":
        return yard
    cores = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if type(cores) is not int or not 1 <= cores <= MOST_CORES:
        raise InvalidSetting(name, f"{value!r} is no number from 1 to {MOST_CORES}", f"set {name}=2, or leave it out")
    return yard.with_cores(cores) if any(pool.per_core for pool in yard.pools) else yard


def _imported(name: str, path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as error:
        raise InvalidSetting(name, str(error), 'name a Yard, for example "mysite.topology.YARD"') from error
    except (SwitchyardError, ValueError) as error:
        fact, _, remedy = str(error).partition("; ")
        where = _place(path, error.__traceback__)
        raise InvalidSetting(name, fact, f"{remedy or 'correct the declaration'}{where}") from error
    except TypeError as error:
        refused = REFUSED.fullmatch(str(error))
        if refused is None:
            raise
        where = _place(path, error.__traceback__)
        fact, remedy = _explained(*refused.groups())
        raise InvalidSetting(name, fact, f"{remedy}{where}") from error


def _explained(kind: str, words: str) -> tuple[str, str]:
    """Return what is wrong in a call of one of the declared classes, and what to write."""
    known = [field.name for field in fields(DECLARED[kind])]
    options = f"has {', '.join(known)}"
    if misspelt := MISSPELT.fullmatch(words):
        option = misspelt[1]
        near = get_close_matches(option, known, n=1)
        remedy = f"did you mean {near[0]!r}? It" if near else "it"
        if owner := next(
            (other for other, of in DECLARED.items() if option in {field.name for field in fields(of)}), ""
        ):
            remedy = f"it is an option of {owner}(...). {kind}"
        return f"{kind} has no {option!r}", f"{remedy} {options}"
    if missing := MISSING.match(words):
        names = re.findall(r"'(\w+)'", words[missing.end() :])
        return f"a {kind} lacks {', '.join(names)}", f"write {', '.join(f'{option}=...' for option in names)}"
    return f"{kind}(...) {words}", f"a {kind} {options}"


def _place(path: str, trace: TracebackType | None) -> str:
    """Return the innermost place in the module of a dotted path, in parentheses; "" when the error is elsewhere."""
    module, found = path.rpartition(".")[0], ""
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == module:
            found = f" ({place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)})"
        trace = trace.tb_next
    return found
