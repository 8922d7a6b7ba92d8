"""Add-ons are found by the scheme of an address; without any the core works."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from switchyard import addon
from switchyard.addon import Addon, addon_for, addons

OTHER = Addon(name="other", title="Other", schemes=("other", "others"), look="tests.unit.platform.test_addons:look")


def look() -> str:
    return "seen"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Keep what one test finds from the next."""
    addon._own.cache_clear()
    addon._installed.cache_clear()
    yield
    addon._own.cache_clear()
    addon._installed.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("other", "tests.unit.platform.test_addons:OTHER", addon.FOLDER)
    monkeypatch.setattr(addon, "entry_points", lambda group: [entry] if group == addon.FOLDER else [])


@pytest.mark.usefixtures("installed")
def test_an_installed_distribution_brings_an_add_on() -> None:
    assert addon_for("others") is OTHER
    assert addon_for("OTHER") is OTHER
    assert list(addons())[-1] is OTHER
    assert addon_for("carrier-pigeon") is None


def test_without_the_folder_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addon, "FOLDER", "switchyard.addons_that_were_deleted")
    assert list(addons()) == []


def test_a_hook_is_resolved_when_it_is_asked_for() -> None:
    assert (OTHER.load("look"), OTHER.load("place")) == (look, None)
    assert (OTHER.call("look", "-"), OTHER.call("check", "-", 1)) == ("seen", "-")


def test_no_two_add_ons_take_over_one_scheme() -> None:
    schemes = [scheme for found in addons() for scheme in found.schemes]
    assert len(schemes) == len(set(schemes))
