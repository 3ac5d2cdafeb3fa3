"""Look at the site as a reader does: a picture of every kind of page, light and dark, wide and narrow.

    scripts/docs
    pip install playwright
    python scripts/screenshots.py --output screenshots --browser /usr/bin/chromium

Pages are opened as files, as from an unpacked archive. What a picture cannot show is an error: a message on the
console, a file or a host that is asked for and not there, a page that is wider than its window, a picture without text.
Prints one line for each page.
"""

import argparse
import re
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).resolve().parents[1] / "docs" / "_build" / "html"
PAGES = (
    "index",
    "learn/index",
    "learn/normalising_flow",
    "howto/adapt",
    "theory/scheme",
    "reference/python/problems",
    "reference/configuration",
    "reference/command_line",
    "compared/index",
    "results/accuracy",
    "gallery",
    "notebooks/a_flow_in_a_notebook",
    "develop/house",
    "search.html?q=limiter",
)
SIZES = {"wide": (1400, 1000), "narrow": (420, 900)}


def address(name: str) -> str:
    """Of a page, with or without its ending and a query."""
    file, _, query = name.partition("?")
    return (SITE / file).with_suffix(".html").as_uri() + (f"?{query}" if query else "")


def faults(page: Page) -> list[str]:
    """What is wrong with a page beyond its looks."""
    found = []
    if (width := page.evaluate("document.documentElement.scrollWidth - window.innerWidth")) > 0:
        found.append(f"{width} pixels wider than the window")
    if nameless := page.evaluate("[...document.images].filter(i => !i.alt && !i.closest('.sidebar-brand')).length"):
        found.append(f"{nameless} pictures without a text")
    if broken := page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"):
        found.append(f"pictures that are not there: {broken}")
    return found


def main() -> int:
    """Take the pictures and count what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES, help="pages without .html")
    parser.add_argument("--output", type=Path, default=Path("screenshots"))
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--full", action="store_true", help="the whole length of a page, not its first screen")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        for name in options.pages:
            for scheme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    said: list[str] = []
                    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
                    page.on("console", lambda message, said=said: said.append(message.text))
                    page.on("requestfailed", lambda request, said=said: said.append(f"failed: {request.url}"))
                    page.on(
                        "request",
                        lambda r, said=said: None if r.url[:4] in {"file", "data", "blob"} else said.append(r.url),
                    )
                    page.goto(address(name), wait_until="networkidle")
                    said += faults(page)
                    target = options.output / f"{re.sub(r'[/?=]', '-', name)}-{scheme}-{size}.png"
                    page.screenshot(path=target, full_page=options.full)
                    page.close()
                    wrong += bool(said)
                    print(target.name, "; ".join(said) or "well")
        browser.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
