"""One page of the system's chromium, driven by playwright. Nothing is downloaded.

with page() as tab:  # a playwright Page
    tab.goto("file:///.../index.html")
    tab.complaints  # what the console has said since: exceptions, errors, failed loads
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def find() -> str | None:
    """A chromium or chrome on this machine, or None."""
    named = os.environ.get("BROWSER", "")
    names = (named, "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def page() -> Iterator:
    """A headless page that keeps its `complaints`; clear the list to begin anew."""
    if not (binary := find()):
        raise SystemExit("This needs chromium; install it or set BROWSER=...")
    with sync_playwright() as driver:
        with driver.chromium.launch(executable_path=binary, args=QUIET) as browser:
            tab = browser.new_page()
            tab.complaints = said = []
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("console", lambda told: said.extend(_complaint(told)))
            tab.route("**/favicon.ico", lambda asked: asked.fulfill(status=204))
            yield tab


def _complaint(told) -> Iterator[str]:
    if told.type in ("error", "assert"):
        yield f"{told.text} {told.location['url'] if 'load' in told.text else ''}".strip()
