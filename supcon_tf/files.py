"""Paths, and files that are written completely or not at all, also when the machine stops."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from supcon_tf.errors import UserError


def expanded(path: str | Path) -> Path:
    """A path with ~ and ~name replaced by home directories.

    Raises:
      UserError: no such user, or a NUL character, which no path has.
    """
    if "\0" in str(path):
        raise UserError(f"a path must not have a NUL character, got {str(path)!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{str(path)!r} names a user without a home directory") from None


def check_links(folder: Path, *, within: Path, advice: str) -> None:
    """Rejects a directory that is or holds a link to something outside of another directory.

    Raises:
      UserError: names the link and gives the advice.
    """
    root = within.resolve()
    for parent, folders, files in os.walk(folder):  # It follows no links.
        for path in (Path(parent), *(Path(parent, name) for name in (*folders, *files))):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UserError(f"{str(path)!r} is a link out of {str(within)!r}: {advice}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write a file to, which replaces `path` at the end.

    After an error the new file is removed and the old one is unchanged.

    Raises:
      OSError: with the name of the file, also where a write to a full disk names none.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Replaces a file by this text in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=errors)


def sync(path: Path) -> None:
    """Flushes a file or a directory to the disk, where the file system can."""
    with contextlib.suppress(PermissionError):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            # Some file systems cannot flush a directory.
            if not path.is_dir():
                raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            os.close(opened)
