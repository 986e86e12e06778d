"""Print the one-page HTML of the book as a PDF: print_pdf.py PAGE.html OUT.pdf

The page lies in a sub-folder while its assets lie beside that folder, so their links are mended in
a copy first.
"""

import re
import sys
from pathlib import Path

import browser

ASSET = re.compile(r'(src|href)="(_static|_images|_sphinx_design_static)/')
UNFOLD = "document.querySelectorAll('details').forEach(fold => fold.open = true)"  # it is paper
TYPESET = "window.MathJax?.startup?.promise"  # the formulas, where there are any


def mend(html: str) -> str:
    """Links to assets, one folder up."""
    return ASSET.sub(r'\1="../\2/', html)


def print_pdf(page: Path, out: Path) -> None:
    copy = page.with_name("print.html")
    copy.write_text(mend(page.read_text(encoding="utf-8")), encoding="utf-8")
    with browser.page() as tab:
        tab.set_default_timeout(300_000)  # a whole book, perhaps on a busy machine
        tab.goto(copy.resolve().as_uri())
        tab.evaluate(f"async () => {{ await {TYPESET} }}")
        tab.evaluate(UNFOLD)
        tab.pdf(path=out, prefer_css_page_size=True)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    print_pdf(Path(sys.argv[1]), Path(sys.argv[2]))
