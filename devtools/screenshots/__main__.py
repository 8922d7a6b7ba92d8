"""Take the pictures of ``docs/screenshots/``.

    python -m devtools.screenshots [NAME…] [--folder FOLDER]

The yard is filled the same way every time; times, ids and processes differ. Needs Chromium.
"""

import argparse
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from devtools.room.yard import RoomYard, room_yard

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb")
# A page has few colours: its most frequent ones are kept, the others are made from those that cover most.
KEPT, COVERING = 112, 112
PATIENCE_MS = 60_000


# Name -> path, with what the maker of letters answers in braces, and a pattern of the heading that the page must show,
# by a live update if not at first; "" for any.
SHOTS = {
    "overview": ("/admin/operations/", "^default is .* behind .* the longest"),
    "queue": ("/admin/operations/queues/default/", ""),
    "workers": ("/admin/operations/workers/", ""),
    "job": ("/admin/switchyard_jobs/job/{jobs[0]}/", ""),
    "dead-letter-group": ("/admin/switchyard_dead_letters/deadletter/?fingerprint={fingerprint}", ""),
    "alerts": ("/admin/switchyard_alerts/alert/", ""),
}


def main() -> int:
    """Start the yard, make what its pages show, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHOTS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="instead of docs/screenshots")
    asked = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        parser.error("chromium is not on PATH; run: sudo apt install chromium")
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=CHROMIUM, timeout=2 * PATIENCE_MS) as browser,
        room_yard() as yard,
    ):
        made = yard.make("letters", 12)
        yard.make("make_default_late")
        for name, (address, heading) in SHOTS.items():
            if name in asked.names or not asked.names:
                _take(address.format(**made), heading, asked.folder / f"{name}-light.png", browser, yard)
    return 0


def _take(address: str, heading: str, path: Path, browser: Browser, yard: RoomYard) -> None:
    context = browser.new_context(
        base_url=yard.url, viewport={"width": 1440, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_MS)
    context.add_cookies([{"name": "sessionid", "value": yard.facts["sessions"]["ada.byron"], "url": yard.url}])
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_role("heading", name=re.compile(heading)).first).to_be_visible(timeout=PATIENCE_MS)
    page.evaluate("() => document.fonts.ready")
    path.write_bytes(_optimised(page.screenshot(animations="disabled")))
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
    context.close()


def _optimised(png: bytes) -> bytes:
    """Return a picture with a palette."""
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    counted: Any = picture.getcolors(picture.width * picture.height)
    kept = [part for _, colour in sorted(counted, reverse=True)[:KEPT] for part in colour]
    covering = picture.quantize(COVERING, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(kept + covering[: 3 * COVERING])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
