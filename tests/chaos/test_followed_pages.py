"""A page that a test follows is followed whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.followed_pages import followed

PAGE = """# Greet

1. Greet `one.example.com`, by `echo aloud`:

   ```sh
   export NAME=one.example.com
   echo "hello $NAME"
   ```

   It prints:

   ```text
   hello one.example.com
   ```
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The page's path."""
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return str(file)


def test_blocks_run_in_order_with_the_tests_addresses(path: str, tmp_path: Path) -> None:
    with followed(path, {"one.example.com": "127.0.0.1"}, tmp_path, {}) as page:
        assert page.run(page.block()) == page.block() == "hello 127.0.0.1\n"
        assert page.run(page.command("echo aloud")) == "aloud\n"


def test_a_block_that_is_not_taken_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"does not follow: .*hello"), followed(path, {}, tmp_path, {}) as page:
        page.run(page.block())


def test_a_text_or_a_command_that_the_page_lacks_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no longer has two"), followed(path, {"two": "2"}, tmp_path, {}):
        pass
    with pytest.raises(AssertionError, match="no longer has rm"), followed(path, {}, tmp_path, {}) as page:
        page.command("rm")


def test_a_command_that_fails_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exited with 3"), followed(path, {}, tmp_path, {}) as page:
        page.run("exit 3\necho never")
