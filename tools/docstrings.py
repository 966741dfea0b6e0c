"""Docstrings of the package as Markdown."""

import html
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

# Turns the code between backticks into Markdown, such as a link.
Linked = Callable[[str], str]

_SECTION = r"^(Args|Attributes|Returns|Yields|Raises|Example):\n((?:[ ]+.*\n|\n)+)"
_ENTRY = r"^\S.*(?:\n(?:[ ].*|$))*"


def sections(documented: Any) -> dict[str, str]:
    """Title -> text of a docstring's sections; the text above them has the title ""."""
    text = f"{inspect.getdoc(documented) or ''}\n"
    found = {"": re.split(_SECTION, text, maxsplit=1, flags=re.M)[0].strip()}
    for title, body in re.findall(_SECTION, text, re.M):
        found[title] = inspect.cleandoc(f"\n{body}").strip()
    return found


def entries(section: str) -> list[tuple[list[str], str]]:
    """Names and description of each entry of a section such as Args, as in "a, b: text"."""
    found = []
    for entry in re.findall(_ENTRY, section, re.M):
        names, _, description = " ".join(entry.split()).partition(": ")
        found.append((names.split(", "), description))
    return found


def argument(documented: Any, name: str, known: Mapping[str, Any]) -> str:
    """The description of an argument; one such as "as in `other`" is that of the other function.

    Args:
      documented: a function, or a class whose docstring or base class describes the argument.
      name: of the argument.
      known: name -> function or class that docstrings refer to, beside those of their modules.

    Returns:
      "" without a description.
    """
    owners = inspect.getmro(documented) if inspect.isclass(documented) else (documented,)
    for owner in owners:
        for names, description in entries(sections(owner).get("Args", "")):
            if name not in names:
                continue
            other = re.match(r"as (?:in|for) `([\w.]+)`", description)
            beside = {**known, **vars(sys.modules[owner.__module__])}
            target = other and beside.get(other[1])
            return (target and argument(target, name, known)) or description
    return ""


def first_sentence(text: str) -> str:
    """The first sentence of a description in one line, without its full stop."""
    # Abbreviations such as "et al." have a small letter or a number after them.
    end = re.search(r"(?<=[^\s.])\.(?=\s+[\"`A-Z]|$)", text)
    return text[: end.start()] if end else text


def escaped(text: str, linked: Linked) -> str:
    """Plain text as Markdown, in which only backticks have a meaning."""
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        plain = re.sub(r"([\\*_#\[\]{}+])", r"\\\1", html.escape(part, quote=False))
        parts[i] = linked(part) if i % 2 else plain.replace("|", "&#124;")
    return "".join(parts)


def markdown(documented: Any, linked: Linked) -> str:
    """A docstring as Markdown, with a list or a block of code for each section."""
    blocks = []
    for title, text in sections(documented).items():
        blocks += [f"**{title}**"] if title else []
        if title == "Example":
            blocks.append(f"```pycon\n{text}\n```")
        elif title in ("Args", "Attributes", "Raises"):
            rows = [
                f"- {', '.join(f'`{name}`' for name in names)}: {escaped(description, linked)}"
                for names, description in entries(text)
            ]
            blocks.append("\n".join(rows))
        else:
            blocks.append(escaped(text, linked))
    return "\n\n".join(blocks)
