"""Open every page of the built book in a real browser and say what is wrong with it.

    python tools/check_pages.py [_build/html] [--shots FOLDER]

Each page at the width of a desktop and of a phone, in the light and in the dark book: nothing in
the console, no picture missing, nothing wider than the page, and no serious or critical finding of
axe-core. axe-core is not part of this repository (its licence is MPL 2.0): it is read from
node_modules/axe-core where `npm install axe-core` has put it, or from $AXE_CORE. Without it a short
list of our own is checked (`OWN_CHECKS`), and that is said. Also: the page itself stays below 2 MB.
"""

import argparse
import http.server
import json
import os
import sys
import threading
from functools import partial
from pathlib import Path

import browser as chromium

ROOT = Path(__file__).resolve().parents[1]
VIEWS = {"desktop": (1440, 900, False), "phone": (390, 844, False), "dark": (1440, 900, True)}
LARGEST = 2 * 2**20  # bytes of a page before pictures are opened

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
  return {wide, missing};
})()"""

# Stands in for axe-core where that cannot be had: far from complete.
OWN_CHECKS = """(() => {
  const found = [], tell = (rule, e) => found.push(rule + ": " + e.outerHTML.slice(0, 120));
  if (!document.documentElement.lang) found.push("html-has-lang");
  if (!document.title) found.push("document-title");
  for (const i of document.images) if (!i.hasAttribute("alt")) tell("image-alt", i);
  let level = 0;
  for (const h of document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")) {
    if (+h.tagName[1] > level + 1) tell("heading-order", h);
    level = +h.tagName[1];
  }
  for (const f of document.querySelectorAll("article :is(input, select, textarea)"))
    if (!f.labels?.length && !f.ariaLabel) tell("label", f);
  for (const b of document.querySelectorAll("article :is(a[href], button)"))
    if (!b.textContent.trim() && !b.ariaLabel && !b.title && !b.querySelector("img[alt]"))
      tell("name", b);
  const ids = [...document.querySelectorAll("article [id]")].map(e => e.id);
  for (const id of new Set(ids.filter((id, n) => ids.indexOf(id) !== n)))
    found.push("duplicate-id: " + id);
  return found;
})()"""

# A colour that is on its way to another one is no fault of the page.
STILL = """(() => {
  const style = document.createElement("style");
  style.textContent = "*, ::before, ::after {transition: none !important; animation: none}";
  document.head.append(style);
})()"""

AXE = """axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .flatMap(v => v.nodes.map(n => `${v.id} (${v.impact}): ${n.html.slice(0, 140)}`)))"""


def find_axe() -> Path | None:
    """The file axe.min.js, if somebody installed it."""
    places = [os.environ.get("AXE_CORE", ""), ROOT / "node_modules" / "axe-core" / "axe.min.js"]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def pages(book: Path) -> list[Path]:
    """The pages that a reader opens; not the theme's own search and index."""
    inside = [p for p in sorted(book.rglob("*.html")) if p.parent.name in ("book", "notebooks")]
    return [p for p in inside if "_static" not in p.parts]


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """The folder on a free port of this machine, as a site would serve it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/favicon.ico":  # browsers ask for one by themselves, now and then
                self.send_response(204)
                self.end_headers()
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def complaints(tab, url: str, rules: str, axe: str) -> list[str]:
    """What is wrong with one page in the view that is set."""
    tab.goto(url)
    tab.evaluate(SETTLED)
    tab.evaluate(STILL)
    seen = tab.evaluate(LOOK)
    found = [f"console: {error}" for error in tab.errors]
    found += [f"missing picture: {source}" for source in seen["missing"]]
    if seen["wide"] > 0:
        found.append(f"{seen['wide']} pixels wider than the page")
    if axe:
        tab.evaluate(axe)
    return found + sorted(set(tab.evaluate(rules)))


def check(book: Path, shots: Path | None = None, say=print) -> int:
    """Look at every page in every view; prints what is wrong and returns how much that is."""
    binary = chromium.find()
    if not binary:
        raise SystemExit("check_pages needs chromium; install it or set BROWSER=...")
    file = find_axe()
    axe = file.read_text(encoding="utf-8") + "; 0" if file else ""
    say(f"accessibility: {'axe-core' if axe else 'our own short list; axe-core is not installed'}")
    server, wrong = serve(book), 0
    with chromium.Browser(binary) as tab:
        for page in pages(book):
            name = page.relative_to(book).as_posix()
            found = {}
            if page.stat().st_size > LARGEST:
                found[f"{page.stat().st_size} bytes, more than {LARGEST}"] = ["file"]
            for view, settings in VIEWS.items():
                tab.view(*settings)
                url = f"http://127.0.0.1:{server.server_port}/{name}"
                for line in complaints(tab, url, AXE if axe else OWN_CHECKS, axe):
                    found.setdefault(line, []).append(view)
                if shots:
                    shots.mkdir(parents=True, exist_ok=True)
                    tab.screenshot(shots / f"{page.stem}-{view}.png")
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
        parser.error(f"no book in {json.dumps(str(asked.book))}; run 'make book' first")
    return bool(check(asked.book, asked.shots))


if __name__ == "__main__":
    sys.exit(main())
