"""The lock of a run directory: one process at a time writes to it."""

import contextlib
import datetime
import getpass
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from supcon_tf.errors import UserError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def hold(file: Path) -> Iterator[None]:
    """Holds a lock file, which names its owner, until the block ends.

    The kernel releases the lock when the process ends in any way, and what a killed process left in
    the file is replaced. The lock of another machine, on a shared file system, is never taken.

    Raises:
      UserError: another process holds the lock, with its name, or held it on another machine.
    """
    lock, is_free = _open(file)
    with lock:
        lock.seek(0)
        previous = _read_owner(lock)
        _check_free(file, previous, is_free)
        if previous:
            print(f"{str(file.parent)!r} was left by {_described(previous)}, which has ended")
        lock.truncate(0)
        lock.write(json.dumps(_this_process()) + "\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
            with contextlib.suppress(OSError):
                file.unlink()


def _open(file: Path) -> tuple[TextIO, bool | None]:
    """The open lock file, and whether this process got the lock; None where there are no locks."""
    while True:
        lock = file.open("a+")
        is_free = _try_lock(lock)
        if not is_free:
            return lock, is_free
        # Its last owner may have removed the file after it was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                return lock, is_free
        lock.close()


def _try_lock(lock: TextIO) -> bool | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _check_free(file: Path, owner: dict[str, Any], is_free: bool | None) -> None:
    this = _this_process()
    is_here = owner.get("host") == this["host"]
    # Containers on one machine have different names but one kernel, which knows all its locks.
    is_here = is_here or owner.get("boot") == (this["boot"] or None)
    if is_free is None and is_here:
        is_free = not _is_alive(owner["pid"])
    if is_free is False:
        raise UserError(
            f"{str(file.parent)!r} is in use by {_described(owner)}: wait for it to end, or give "
            "another --workdir"
        )
    if owner and not is_here:
        raise UserError(
            f"{str(file.parent)!r} is in use by {_described(owner)}: if that has ended, remove "
            f"{str(file)!r}"
        )


def _this_process() -> dict[str, Any]:
    try:
        owner = getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no name.
        owner = str(os.getuid())
    return {
        "owner": owner,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "boot": _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
    }


def _read_owner(lock: TextIO) -> dict[str, Any]:
    """What `hold` wrote; an empty dict for an empty or damaged file."""
    try:
        owner = json.loads(lock.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return "process {pid} of {owner} on {host}, since {since}".format_map(
        {"pid": "?", "owner": "?", "host": "?", "since": "?", **owner}
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
