"""Builds the documentation site in build/site, which needs no other host: `make docs`.

The pages are README.md, the other pages of the repository and of docs/, and the reference from the
docstrings. A broken link is an error.

example:
  python tools/docs_site.py
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from latex2mathml.converter import convert
from reference_pages import API, api_page, gin_page, links

ROOT = Path(__file__).parents[1]

STYLE = """
.md-grid { max-width: 76rem }
.md-typeset table:not([class]) { font-size: 0.66rem }
.md-typeset table:not([class]) th { min-width: 0 }
.md-typeset table:not([class]) code { word-break: normal }
.md-typeset table:not([class]) td:nth-child(n + 4) { min-width: 6rem }
.md-typeset table:not([class]) td:nth-child(n + 4) code { overflow-wrap: anywhere }
"""


def site_pages(root: Path) -> dict[Path, str]:
    """Page of the repository -> page of the site, both relative."""
    own = {path.relative_to(root) for path in root.glob("*.md")}
    documents = {path.relative_to(root) for path in root.glob("docs/**/*.md")}
    pages = {path: str(path) for path in own}
    pages |= {path: path.relative_to("docs").as_posix() for path in documents}
    return pages | {Path("README.md"): "index.md", Path("docs/README.md"): "contents.md"}


def with_site_links(text: str, page: Path, pages: dict[Path, str]) -> str:
    """The text of a page with links to the site's pages; a link to another file is its text.

    Args:
      text: Markdown.
      page: its path in the repository.
      pages: from `site_pages`.
    """

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match.groups()
        path = Path(os.path.normpath(page.parent / target)) if target else page
        if path in pages:
            place = pages[path]
        elif path.is_relative_to("docs/images"):
            place = str(path.relative_to("docs"))
        else:
            return label.strip("[]")
        return f"{label}({os.path.relpath(place, Path(pages[page]).parent)}{anchor})"

    return re.sub(r"(!?\[[^\]]*\])\((?!\w+:)([^)#\s]*)((?:#[^)\s]*)?)\)", replace, text)


def with_mathml(text: str) -> str:
    """The text with its LaTeX formulas as MathML, which browsers show without a script."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.S)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\$\$(.+?)\$\$", _display, parts[i], flags=re.S)
        parts[i] = re.sub(r"\$(\S(?:[^$\n]*\S)?)\$", lambda m: convert(m[1]), parts[i])
    return "".join(parts)


def _display(match: re.Match[str]) -> str:
    return f"<div>{convert(match[1], display='block')}</div>"


def write_pages(output: Path) -> None:
    """Writes the Markdown files of all pages, and their pictures."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", output / "images")
    pages = site_pages(ROOT)
    texts = {
        place: with_mathml(with_site_links((ROOT / page).read_text("utf-8"), page, pages))
        for page, place in pages.items()
    }
    linked = links("")
    texts |= {f"reference/{name}.md": api_page(module, linked) for name, module in API.items()}
    texts["reference/gin.md"] = gin_page(linked)
    texts["site.css"] = STYLE
    for place, text in texts.items():
        path = output / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def build(folder: Path) -> int:
    """Builds the site from folder/pages in folder/site; returns the exit code, 1 for a warning."""
    shutil.copy(ROOT / "docs" / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    write_pages(ROOT / "build" / "pages")
    sys.exit(build(ROOT / "build"))
