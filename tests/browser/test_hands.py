"""The hands of the tests themselves, on a page whose styles arrive late."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Open
from tests.browser.hands import Mouse

SLOW_NETWORK = {"offline": False, "latency": 1_000, "downloadThroughput": -1, "uploadThroughput": -1}


@pytest.mark.long
def test_an_act_waits_for_the_styles_of_its_page(open_page: Open) -> None:
    """A row of links for narrow screens has the names of the table's headings; on a wide one, only a style hides it."""
    page = open_page(scripts=False)
    hand = Mouse(page)
    hand.begin()
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    network.send("Network.emulateNetworkConditions", SLOW_NETWORK)

    hand.menu("Actors")
    hand.act("link", "^Ran, 95 %$")

    assert "sort=-run" in page.url
