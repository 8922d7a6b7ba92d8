"""Untrusted bytes are never unpickled: neither this library nor its dependencies for messages read pickles."""

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from django.conf import settings
from dramatiq.encoder import JSONEncoder
from dramatiq.message import get_encoder
from dramatiq.results.backends import RedisBackend

from switchyard.broker.errors import UnreadablePayload
from switchyard.broker.queue import codec
from switchyard.broker.queue.json_body import decode

ROOT = Path(settings.BASE_DIR)
FOLDERS = ("switchyard", "middleware", "apps", "project")
# Modules that read pickles, or something as powerful, and those of dramatiq and django that do it for one.
FORBIDDEN = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"})
FORBIDDEN_NAMES = frozenset({"PickleEncoder", "PickleSerializer"})


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)  # importlib.import_module("pickle")
    return found


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_of_ours_imports_pickle(folder):
    sources = list((ROOT / folder).rglob("*.py"))

    offending = {path.name for path in sources if imported(path.read_text()) & (FORBIDDEN | FORBIDDEN_NAMES)}

    assert sources
    assert offending == set()


def test_messages_results_sessions_and_cache_use_json():
    assert not isinstance(get_encoder(), dramatiq.PickleEncoder)
    assert isinstance(RedisBackend(client=None).encoder, JSONEncoder | type(get_encoder()))
    assert settings.SESSION_SERIALIZER == "django.contrib.sessions.serializers.JSONSerializer"
    assert {cache["BACKEND"] for cache in settings.CACHES.values()} <= {
        "django.core.cache.backends.locmem.LocMemCache",  # of this process alone: nobody else writes it
        "django.core.cache.backends.dummy.DummyCache",
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_crafted_pickle_runs_nothing(tmp_path, protocol):
    canary = tmp_path / "canary"
    body = pickle.dumps(Canary(canary), protocol)

    with pytest.raises(UnreadablePayload):
        decode(body)
    with pytest.raises(codec.UnreadableMessage):
        codec.decode(body, message_id="1", lane="q")
    assert codec.decode(
        json.dumps({"actor": "a", "sent_at": 1, "args": [body.hex()]}).encode(), message_id="1", lane="q"
    ).args == (body.hex(),)

    assert not canary.exists()
    pickle.loads(body)
    assert canary.exists(), "the canary sings when it is unpickled"
