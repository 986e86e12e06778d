"""Open every page of the built book in a real browser and say what is wrong with it.

    python tools/check_pages.py [_build/html] [--shots FOLDER]

Each page at the width of a desktop and of a phone, in the light and in the dark book: nothing in
the console, no picture missing, no formula left as it was typed, nothing wider than the page, and
no serious or critical finding of axe-core, nor a heading out of order. axe-core (MPL 2.0) comes
with the package axe-playwright-python and is no part of this repository. Also: the page itself
stays below 2 MB, and the first page with all that it loads below 1 MB.
"""

import argparse
import http.server
import sys
import threading
from functools import partial
from pathlib import Path

import browser
from axe_playwright_python.sync_playwright import Axe

ROOT = Path(__file__).resolve().parents[1]
VIEWS = {"desktop": (1440, 900, "light"), "phone": (390, 844, "light"), "dark": (1440, 900, "dark")}
LARGEST = 2 * 2**20  # bytes of a page before pictures are opened
FIRST, LIGHT = "book/index.html", 10**6  # bytes that the first page may load, not compressed

SETTLED = """(async () => {
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].filter(i => i.currentSrc || i.getAttribute("src")).map(
    i => i.complete || new Promise(done => { i.onload = i.onerror = done; })));
  const explorer = document.getElementById("look");
  for (let n = 0; n < 100 && explorer && !explorer.dataset.ready; n++)
    await new Promise(done => setTimeout(done, 100));
  if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
})()"""

LOOK = """(() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  const missing = [...document.images].filter(
    i => i.getAttribute("src") && i.complete && i.naturalWidth === 0).map(i => i.src);
  const math = [".math", "mjx-container"].map(a => document.querySelectorAll(a).length);
  const kinds = ["navigation", "resource"].flatMap(kind => performance.getEntriesByType(kind));
  const loaded = kinds.reduce((sum, each) => sum + each.transferSize, 0);
  return {wide, missing, raw: math[0] - math[1], loaded};
})()"""

# A colour that is on its way to another one is no fault of the page.
STILL = """(() => {
  const style = document.createElement("style");
  style.textContent = "*, ::before, ::after {transition: none !important; animation: none}";
  document.head.append(style);
})()"""

SEVERE = ("serious", "critical")


def pages(book: Path) -> list[Path]:
    """The pages that a reader opens; not the theme's own search and index."""
    inside = [p for p in sorted(book.rglob("*.html")) if p.parent.name in ("book", "notebooks")]
    return [p for p in inside if "_static" not in p.parts]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """The folder on a free port of this machine, as a site would serve it."""
    handler = partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def complaints(tab, url: str) -> list[str]:
    """What is wrong with one page in the view that is set."""
    tab.complaints.clear()
    tab.goto(url)
    tab.evaluate(SETTLED)
    tab.evaluate(STILL)
    seen = tab.evaluate(LOOK)
    found = [f"console: {error}" for error in tab.complaints]
    found += [f"missing picture: {source}" for source in seen["missing"]]
    if seen["raw"]:
        found.append(f"{seen['raw']} formulas are not typeset")
    if seen["wide"] > 0:
        found.append(f"{seen['wide']} pixels wider than the page")
    if url.endswith(FIRST) and seen["loaded"] > LIGHT:
        found.append(f"loads {seen['loaded']} bytes, more than {LIGHT}")
    return found + barriers(tab)


def barriers(tab) -> list[str]:
    """What axe-core finds that keeps people out."""
    found = [
        f"{rule['id']} ({rule['impact']}): {node['html'][:140]}"
        for rule in Axe().run(tab).response["violations"]
        if rule["impact"] in SEVERE or rule["id"] == "heading-order"
        for node in rule["nodes"]
    ]
    return sorted(set(found))


def check_page(tab, file: Path, url: str, shots: Path | None) -> dict[str, list[str]]:
    """{complaint: the views that it holds for} of one page; its pictures go to `shots`."""
    size, found = file.stat().st_size, {}
    if size > LARGEST:
        found[f"{size} bytes, more than {LARGEST}"] = ["file"]
    for view, (width, height, scheme) in VIEWS.items():
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        for line in complaints(tab, url):
            found.setdefault(line, []).append(view)
        if shots:
            tab.screenshot(path=shots / f"{file.stem}-{view}.png")
    return found


def check(book: Path, shots: Path | None = None, say=print) -> int:
    """Look at every page in every view; prints what is wrong and returns how much that is."""
    server, wrong = serve(book), 0
    with browser.page() as tab:
        for file in pages(book):
            name = file.relative_to(book).as_posix()
            found = check_page(tab, file, f"http://127.0.0.1:{server.server_port}/{name}", shots)
            wrong += len(found)
            say(f"{name}: {len(found) or 'nothing'} to complain about")
            for line, views in found.items():
                say(f"  {line} [{', '.join(views)}]")
    server.shutdown()
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("book", type=Path, nargs="?", default=ROOT / "_build" / "html")
    parser.add_argument("--shots", type=Path, help="folder for a picture of each page and view")
    asked = parser.parse_args(arguments)
    if not pages(asked.book):
        parser.error(f"no book in {str(asked.book)!r}; run 'make book' first")
    return bool(check(asked.book, asked.shots))


if __name__ == "__main__":
    sys.exit(main())
