"""Small repairs of what the theme and its extensions write, for everybody's browser.

- The script for live code ("thebe") is written twice on each page, an error in the console, and
  this book has no live code: it is left out.
- A list of references is a list, so its entries must be list items for screen readers; and a
  folded cell is called by its visible words. What a chapter folds whole is a table.

What the theme writes outside of the page's own text is repaired in `_static/accessible.js`.
"""

REPAIRS = (
    ('role="doc-biblioentry"', 'role="listitem"'),
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ("Show code cell content", "Show the table"),
    ("Hide code cell content", "Hide the table"),
)


def is_live_code(script) -> bool:
    """Whether an entry of the page's scripts belongs to thebe."""
    told = [str(getattr(script, "filename", script)), *getattr(script, "attributes", {}).values()]
    return any("thebe" in str(part).lower() for part in told)


def tidy(app, page, template, context, doctree) -> None:
    context["script_files"] = [s for s in context["script_files"] if not is_live_code(s)]
    for before, after in REPAIRS:
        if "body" in context:
            context["body"] = context["body"].replace(before, after)


def setup(app):
    app.connect("html-page-context", tidy, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
