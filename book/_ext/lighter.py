"""A page asks for what it shows and for nothing more, so that it opens fast without a server.

- Icons: the theme loads all 2,000 of Font Awesome (1.5 MB) as drawings and again as letters of a
  font. The drawings that no page uses are taken out of its script, the letters out of its sheet.
- Formulas: MathJax (1.2 MB) is loaded where there is a formula.
- Search: the index of all words is loaded by the page of results alone, where it is used.
"""

import re
from pathlib import Path

ICON = re.compile(r'"?([a-z0-9-]+)"?:\[\d+,\d+,\[[^\]]*\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
LETTER = re.compile(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"[^"]*"\}')
USED = re.compile(r"\bfa-([a-z0-9-]+)")
SCRIPTS = Path("_static", "scripts")
SHEET = Path("_static", "styles", "pydata-sphinx-theme.css")
SEARCH = re.compile(r'\s*<script src="[^"]*(searchtools|language_data|searchindex)\.js"></script>')


def needs(script, body: str) -> bool:
    """Whether a page with this body uses a script that its template asks for."""
    name = str(getattr(script, "filename", None) or "")
    return 'class="math' in body or not name.endswith("mathjax/tex-chtml.js")


def lighten(app, page, template, context, doctree) -> None:
    body = context.get("body", "")
    context["script_files"] = [s for s in context["script_files"] if needs(s, body)]


def used(folder: Path) -> set[str]:
    """The icons that the pages, or the scripts of the theme, name."""
    files = [*folder.rglob("*.html"), folder / SCRIPTS / "pydata-sphinx-theme.js"]
    return {name for file in files for name in USED.findall(file.read_text(encoding="utf-8"))}


def fewer(script: str, names: set[str]) -> str:
    """The script without the drawings of other icons."""
    return ICON.sub(lambda found: found[0] if found[1] in names else "", script)


def trim(app, exception) -> None:
    if exception is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        if page.name != "search.html":
            _change(page, lambda text: SEARCH.sub("", text))
    _change(out / SCRIPTS / "fontawesome.js", lambda text: fewer(text, used(out)))
    _change(out / SHEET, lambda text: LETTER.sub("", text))


def _change(file: Path, how) -> None:
    before = file.read_text(encoding="utf-8")
    after = how(before)
    if after != before:
        file.write_text(after, encoding="utf-8")


def setup(app):
    app.connect("html-page-context", lighten, priority=900)
    app.connect("build-finished", trim)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
