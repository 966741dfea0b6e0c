"""JSON files, and checksums.json, which tells a changed file of a directory."""

import hashlib
import json
from pathlib import Path
from typing import Any

from supcon_tf.errors import UserError
from supcon_tf.files import write_text

_CHECKSUMS = "checksums.json"


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` or `write_checked_json` wrote; an empty dict where there is no file.

    Raises:
      UserError: a damaged file, or one that has changed since its checksum was recorded.
    """
    if not path.exists():
        return {}
    text = path.read_bytes()
    try:
        content = json.loads(text.decode())
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise UserError(
            f"{str(path)!r} is damaged ({content}): remove it, and the same command makes it again"
        )
    # The checksums after the file, since another process may be replacing both.
    checksums = _recorded(path)
    if checksums and hashlib.sha256(text).hexdigest() not in checksums:
        raise UserError(
            f"{str(path)!r} is damaged (changed since it was written): remove it, and the same "
            f"command makes it again; or remove {_CHECKSUMS!r} there to use it as it is"
        )
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file."""
    write_text(path, _text(content))


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file and records its checksum in checksums.json beside it."""
    _record(path, hashlib.sha256(_text(content).encode()).hexdigest())
    write_json(path, content)


def move_checked_json(source: Path, target: Path) -> None:
    """Replaces a JSON file by another one of the same directory."""
    _record(target, sha256(source))
    source.replace(target)


def write_checksums(folder: Path) -> None:
    """Writes checksums.json with the checksums of all files below a directory."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    checksums = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    write_json(folder / _CHECKSUMS, checksums)


def check_checksums(folder: Path) -> None:
    """Checks the files below a directory; nothing where there is no checksums.json.

    Raises:
      UserError: names a file that is damaged, missing or has changed.
    """
    for name, expected in read_json(folder / _CHECKSUMS).items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{str(file)!r} is missing")
        if sha256(file) != expected:
            raise UserError(f"{str(file)!r} has changed since it was written")


def sha256(file: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _record(path: Path, checksum: str) -> None:
    """Records the checksum of the next content, before it is written.

    That of the current content is kept too: a kill before the file is replaced leaves it.
    """
    recorded = _recorded(path)
    current = [sha256(path)] if path.exists() else []
    kept = [each for each in current if not recorded or each in recorded]
    file = path.with_name(_CHECKSUMS)
    write_json(file, {**read_json(file), path.name: [*kept, checksum]})


def _recorded(path: Path) -> list[str]:
    """The checksums that a file may have; [] for one of an older version.

    Raises:
      UserError: damaged checksums.
    """
    file = path.with_name(_CHECKSUMS)
    if path == file:
        return []
    checksums = read_json(file).get(path.name, [])
    if isinstance(checksums, str):  # Of `write_checksums`.
        return [checksums]
    if not isinstance(checksums, list):
        raise UserError(
            f"{str(file)!r} is damaged, {path.name!r} must be a list: remove it, and the same "
            "command makes it again"
        )
    return checksums
