"""Print the one-page HTML of the book as a PDF: print_pdf.py BROWSER PAGE.html OUT.pdf

The page lies in a sub-folder while its assets lie beside that folder, so their links are mended in
a copy first.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ASSET = re.compile(r'(src|href)="(_static|_images|_sphinx_design_static)/')


def mend(html: str) -> str:
    """Links to assets, one folder up."""
    return ASSET.sub(r'\1="../\2/', html)


def print_pdf(browser: str, page: Path, out: Path) -> None:
    copy = page.with_name("print.html")
    copy.write_text(mend(page.read_text(encoding="utf-8")), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += ["--disable-background-networking", "--no-pdf-header-footer", "--no-first-run"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=10000"]
        command += [f"--print-to-pdf={out.resolve()}", copy.resolve().as_uri()]
        subprocess.run(command, check=True, timeout=300, stderr=subprocess.DEVNULL)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    print_pdf(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
