"""Take the pictures of ``docs/screenshots/``; with ``--all`` those of every page, in light, dark and on a phone.

    python -m devtools.screenshots [NAME…] [--all] [--folder FOLDER]

The yard is filled the same way every time; times, ids and processes differ. Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from devtools.room.yard import RoomYard, room_yard

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb")
WIDE, PHONE = (1440, 900), (390, 844)
WAYS = {"light": ("light", WIDE), "dark": ("dark", WIDE), "phone": ("light", PHONE)}
# A page has few colours: its most frequent ones are kept, the others are made from those that cover most.
KEPT, COVERING = 112, 112
PATIENCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One page.

    Args:
        name: Of its files: ``<name>-light.png``, ``<name>-dark.png``, ``<name>-phone.png``.
        path: With names of the situation in braces.
        heading: A pattern of the heading that it must show, by a live update if not at first; "" for any.
        kept: ``docs/screenshots/`` has it, in light: a page of the documentation shows it.
    """

    name: str
    path: str
    heading: str = ""
    kept: bool = False


QUEUE = "/admin/operations/queues/default/"
JOB, LETTER = "/admin/switchyard_jobs/job/", "/admin/switchyard_dead_letters/deadletter/"
ALERT = "/admin/switchyard_alerts/alert/"
SHOTS = (
    Shot("overview", "/admin/operations/", "^default is .* behind .* the longest", kept=True),
    Shot("overview-table", "/admin/operations/?yard=table"),
    Shot("queue", QUEUE, kept=True),
    Shot("queues", "/admin/operations/queues/"),
    Shot("pause", f"{QUEUE}pause/"),
    Shot("purge", f"{QUEUE}purge/"),
    Shot("move", f"{QUEUE}relocate/?actor=thank"),
    Shot("workers", "/admin/operations/workers/", kept=True),
    Shot("jobs", JOB),
    Shot("job", f"{JOB}{{job}}/", kept=True),
    Shot("actors", "/admin/operations/actors/"),
    Shot("actor", "/admin/operations/actors/price_basket/"),
    Shot("dead-letters", LETTER),
    Shot("dead-letter-group", f"{LETTER}?fingerprint={{fingerprint}}", kept=True),
    Shot("dead-letter", f"{LETTER}{{letter}}/change/"),
    Shot("requeue", f"{LETTER}group/{{fingerprint}}/requeue/"),
    Shot("discard", f"{LETTER}group/{{fingerprint}}/discard/"),
    Shot("quarantine", f"{LETTER}quarantine/"),
    Shot("schedules", "/admin/operations/schedules/"),
    Shot("alerts", ALERT, kept=True),
    Shot("alert", f"{ALERT}1/change/"),
    Shot("silence", f"{ALERT}silences/new/"),
    Shot("bulk-acts", "/admin/operations/bulk/"),
    Shot("audit-log", "/admin/operations/audit/"),
    Shot("retention", "/admin/operations/retention/"),
    Shot("find", "/admin/operations/find/?q=price"),
)


def main() -> int:
    """Start the yard, make what its pages show, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(shot.name for shot in SHOTS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="instead of docs/screenshots")
    parser.add_argument("--all", action="store_true", help="every page in light, dark and on a phone; needs --folder")
    asked = parser.parse_args()
    if asked.all and asked.folder == FOLDER:
        parser.error("--all takes every picture, and docs/ keeps a few; name a folder: --all --folder FOLDER")
    program = shutil.which("chromium")
    if program is None:
        parser.error("chromium is not on PATH; run: sudo apt install chromium")
    shots = [shot for shot in SHOTS if shot.name in asked.names or (not asked.names and (asked.all or shot.kept))]
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=CHROMIUM, timeout=2 * PATIENCE_MS) as browser,
        room_yard() as yard,
    ):
        made = yard.make("letters", 12)
        yard.make("make_default_late")
        names = {"job": made["jobs"][0], "letter": made["letters"][0], "fingerprint": made["fingerprint"]}
        for shot in shots:
            for way in WAYS if asked.all else ("light",):
                _take(shot, way, browser, yard, names, asked.folder)
    return 0


def _take(shot: Shot, way: str, browser: Browser, yard: RoomYard, names: dict[str, Any], folder: Path) -> None:
    scheme, (width, height) = WAYS[way]
    context = browser.new_context(
        base_url=yard.url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    context.add_cookies([{"name": "sessionid", "value": yard.facts["sessions"]["ada.byron"], "url": yard.url}])
    page = context.new_page()
    page.goto(shot.path.format(**names))
    expect(page.get_by_role("heading", name=re.compile(shot.heading)).first).to_be_visible(timeout=PATIENCE_MS)
    page.evaluate("() => document.fonts.ready")
    path = folder / f"{shot.name}-{way}.png"
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
