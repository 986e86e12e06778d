"""Which configuration builds the book: prints its path.

A local build has no repository to link to, so it has no repository and launch buttons. When the
environment names the repository (as the publishing workflow does), a second configuration with
those buttons is written beside the first:

    LVLM_STUDY_REPOSITORY=https://github.com/OWNER/NAME   LVLM_STUDY_BRANCH=main
"""

import os
import re
import sys
from pathlib import Path

import yaml

BASE = Path(__file__).resolve().parents[1] / "book" / "_config.yml"
ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")


def with_repository(config: dict, url: str, branch: str) -> dict:
    """The configuration plus buttons for repository, issues, Colab and Binder.

    No edit button: on a chapter it would lead to the generated notebook and not to its source.
    """
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"LVLM_STUDY_REPOSITORY is {url!r}; give https://HOST/OWNER/NAME.")
    html = {"use_repository_button": True, "use_issues_button": True}
    return config | {
        "repository": {"url": url, "path_to_book": "", "branch": branch},
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        },
        "html": config.get("html", {}) | html,
    }


def write_config(base: Path, environment) -> Path:
    """`base` itself without a repository, else the file written for it."""
    url = environment.get("LVLM_STUDY_REPOSITORY", "").removesuffix(".git").rstrip("/")
    if not url:
        return base
    config = yaml.safe_load(base.read_text(encoding="utf-8"))
    merged = with_repository(config, url, environment.get("LVLM_STUDY_BRANCH") or "main")
    path = base.with_name("_config.published.yml")
    path.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    return path


if __name__ == "__main__":
    try:
        print(os.path.relpath(write_config(BASE, os.environ)))
    except ValueError as error:
        sys.exit(str(error))
