"""Runs tutorials of docs/tutorials and writes their pages, with what they print and draw.

A tutorial is a script in cells: code below "# %%", and as comments text below "# %% [markdown]",
commands below "# %% [bash]" and a gin file below "# %% [NAME.gin]". It draws by saving PNG files in
the working directory. The page has the script's name and the suffix .md, its pictures are in
docs/images/tutorials.

example:
  python tools/run_tutorials.py docs/tutorials/own_fit.py
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images" / "tutorials"
# A constant with its value in a quick run, as in "EPOCHS = 20  # quick: 1".
_QUICK = r"^(\w+ = ).*  # quick: (.+)$"


def cells(script: str) -> list[tuple[str, str]]:
    """The cells of a script: "code", "markdown", "bash" or the name of a gin file, and the text."""
    found = []
    for title, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*(?:\n|$))*)", script, re.M):
        if title.strip():
            found.append((title.strip(" []"), re.sub(r"^# ?", "", body, flags=re.M).strip()))
        else:
            found.append(("code", body.strip()))
    return found


def quick(script: str) -> str:
    """The script with the quick values of its constants."""
    return re.sub(_QUICK, r"\1\2", script, flags=re.M)


def shown(kind: str, text: str) -> str:
    """A cell as a page shows it."""
    if kind == "markdown":
        return text
    if kind == "code":
        return f"```python\n{re.sub('  # quick: .*$', '', text, flags=re.M)}\n```"
    return f"```bash\n{text}\n```" if kind == "bash" else f"```\n# {kind}\n{text}\n```"


def _printed_by(commands: str) -> str:
    """Runs commands of bash, with this Python as `python`, and returns what they print."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PATH": path},
    ).stdout


def run(script: str, *, name: str) -> tuple[str, list[Path]]:
    """Runs a script in the working directory.

    Args:
      script: its text.
      name: start of the names of the page's pictures.

    Returns:
      The page, and the pictures that the script saved, in the order of the page.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks: list[str] = []
    pictures: list[Path] = []
    for kind, text in cells(script):
        printed = io.StringIO()
        if kind == "code":
            with contextlib.redirect_stdout(printed):
                exec(compile(text, name, "exec"), namespace)
        elif kind == "bash":
            printed.write(_printed_by(text))
        elif kind.endswith(".gin"):
            Path(kind).write_text(f"{text}\n", "utf-8")
        blocks.append(shown(kind, text))
        output = printed.getvalue().replace(f"{Path.cwd()}{os.sep}", "").rstrip()
        if output:
            blocks.append(f"```text\n{output}\n```")
        for picture in sorted(set(Path().glob("*.png")) - set(pictures)):
            pictures.append(picture)
            alt = picture.stem.replace("_", " ")
            blocks.append(f"![{alt}](../images/tutorials/{name}_{picture.name})")
    return "\n\n".join(blocks) + "\n", pictures


def _processor_seconds() -> float:
    """Processor time of this process and of those that it started."""
    return sum(os.times()[:4])


def main(path: Path) -> None:
    """Runs one tutorial and writes its page and pictures."""
    script, start = path.read_text("utf-8"), _processor_seconds()
    page_path = path.resolve().with_suffix(".md")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        page, pictures = run(script, name=path.stem)
        PICTURES.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            shutil.copy(picture, PICTURES / f"{path.stem}_{picture.name}")
    page += (
        f"\n`python tools/run_tutorials.py docs/tutorials/{path.name}` made this page, in "
        f"{_processor_seconds() - start:.0f} s of processor time.\n"
    )
    page_path.write_text(page, "utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(Path(argument))
