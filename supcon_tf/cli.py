"""What the commands share: one-line errors for a user's mistakes, and quiet libraries."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# Where TensorFlow leaves oneDNN off (a CPU without AVX-512), a ResNet's backward pass takes four
# times as long. Read when TensorFlow is imported: the commands import this module before others.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PACKAGE = str(Path(__file__).parent)


def devices() -> str:
    """The devices that TensorFlow found, as "1 CPU, 2 GPU"; imports it without its chatter.

    While it is loaded and looks for devices, TensorFlow writes lines to the process's stderr that
    no log level stops, which would hide a one-line error among them.
    """
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        kinds = [device.device_type for device in tf.config.list_physical_devices()]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


DEVICES = devices()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an argument in one line, without the usage before it."""

    def __init__(self, description: str | None, *, prog: str):
        super().__init__(
            prog=f"python -m supcon_tf.{prog}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        self.exit(2, f"{self.prog}: {message}; --help shows what it takes\n")


def run(main: Callable[[list[str] | None], None]) -> NoReturn:
    """Runs a command and exits: 0 when it finished, 2 with one line for a user's mistake.

    A `ValueError`, `RuntimeError` or `OSError` that this package raised itself tells of a wrong
    value, and its message names the fix; another `OSError` names the file, and a call that gin
    could not make the missing argument. Anything else is a fault of the program and shows its
    traceback.
    """
    try:
        main(None)
    except KeyboardInterrupt:
        sys.exit("stopped; a training run goes on from its last checkpoint by the same command")
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        message = _mistake(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _mistake(error: Exception) -> str | None:
    """What to say of a user's mistake, and None for a fault of the program."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    # gin adds lines that tell where a configured call stands.
    message = str(error).splitlines()[0]
    if isinstance(error, TypeError):
        return message if Path(raised_in).parent.name == "gin" else None
    if raised_in.startswith(PACKAGE):
        return message
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return None
