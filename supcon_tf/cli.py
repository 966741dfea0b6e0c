"""What the commands share: flags, one-line errors for a user's mistakes, a quiet TensorFlow.

Each command has its own `FlagValues`, apart from absl's global ones, so that several commands can
run in one process. Importing this module does not import TensorFlow.
"""

import contextlib
import inspect
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags, logging

from supcon_tf.errors import Stopped, UserError
from supcon_tf.files import check_links
from supcon_tf.json_files import check_checksums
from supcon_tf.run_dir import RunDir

VERBOSITY_HELP = (
    "-1 shows warnings (default), 0 also what TensorFlow and other libraries report, 1 everything"
)
# absl adds this to the help of a flag that may repeat.
REPEATABLE = ";\n    repeat this option to specify a list of values"


def new_flags() -> flags.FlagValues:
    """The flags that every command has; each command adds its own."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "show this text", short_name="h", flag_values=values)
    flags.DEFINE_integer(
        "verbosity", logging.WARNING, VERBOSITY_HELP, short_name="v", flag_values=values
    )
    return values


def define_gin_flags(values: flags.FlagValues) -> None:
    """Adds --gin_file and --gin_param."""
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "FILE: settings, a path or the name of a shipped file; later files win",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "gin_param",
        [],
        'BINDING: one setting, such as "losses.SupConLoss.temperature = 0.2"; wins over files',
        flag_values=values,
    )


def parse(
    values: flags.FlagValues,
    argv: Sequence[str] | None,
    doc: str | None,
    *,
    takes_paths: bool = False,
) -> list[str]:
    """Sets the flags from a command line; --help prints `doc` and the flags and exits with 0.

    Args:
      values: the command's flags.
      argv: the arguments after the program's name; None for those of this process.
      doc: the command's docstring.
      takes_paths: whether arguments that are not flags are allowed.

    Returns:
      The arguments that are not flags.

    Raises:
      UserError: an unknown flag, a wrong value, or an argument that is not a flag.
    """
    values.set_gnu_getopt(True)  # Flags may follow other arguments.
    try:
        _, *others = values(["", *(sys.argv[1:] if argv is None else argv)])
    except flags.Error as error:
        raise UserError(f"{error}; --help shows all flags") from None
    if values.help:
        print(f"{inspect.cleandoc(doc or '')}\n\nflags:\n{_flags_help(values)}")
        sys.exit(0)
    logging.set_verbosity(values.verbosity)
    if others and not takes_paths:
        raise UserError(f"unexpected argument {others[0]!r}; --help shows all flags")
    return others


def _flags_help(values: flags.FlagValues) -> str:
    modules: dict[str, list[Any]] = values.flags_by_module_dict()
    # absl adds --flagfile and --undefok.
    defined = [flag for name in modules if not name.startswith("absl") for flag in modules[name]]
    common_last = sorted(defined, key=lambda flag: flag.name in ("help", "verbosity"))
    texts = [
        textwrap.fill(
            f"--{flag.name}  {flag.help.replace(REPEATABLE, '; may repeat')}",
            100,
            initial_indent="  ",
            subsequent_indent="      ",
        )
        for flag in common_last
    ]
    return "\n".join(texts)


def existing_run(path: str) -> RunDir:
    """A run directory.

    Raises:
      UserError: there is none.
    """
    if not RunDir(Path(path)).config.is_file():
        raise UserError(
            f"no run in {str(Path(path))!r}: python -m supcon_tf.train --workdir makes one"
        )
    return RunDir(Path(path))


def trained_export(workdir: str) -> Path:
    """The SavedModel of a run.

    Raises:
      UserError: there is none, it is damaged, or a link in it leads out of the run.
    """
    export = RunDir(Path(workdir)).export
    if not (export / "saved_model.pb").is_file():
        raise UserError(
            f"no trained model in {workdir!r}: a run writes it when its first stage ends, "
            "python -m supcon_tf.train with the same --workdir continues it"
        )
    check_checksums(export)
    check_links(export, within=export.parent, advice="put what it leads to in its place")
    return export


def existing_export(path: str) -> Path:
    """The directory of a SavedModel.

    Raises:
      UserError: there is none.
    """
    if not (Path(path) / "saved_model.pb").is_file():
        raise UserError(f"no SavedModel in {path!r}: python -m supcon_tf.export makes one")
    return Path(path)


def start_tensorflow() -> str:
    """Imports TensorFlow quietly and returns its devices, as "8 CPU cores, 2 GPU".

    Call it before any module that imports TensorFlow. While TensorFlow is loaded and looks for
    devices, it writes lines to the process's stderr that no log level stops and that would hide a
    one-line error. --verbosity=0 shows them.
    """
    is_quiet = logging.get_verbosity() < logging.INFO
    # Another backend in ~/.keras/keras.json would be imported by Keras.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        # Where TensorFlow leaves oneDNN off (a CPU without AVX-512), a ResNet's backward pass takes
        # four times as long. TensorFlow reads both variables when it is imported.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if is_quiet else "0")
    stderr = os.dup(2)
    try:
        if is_quiet:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        import tensorflow as tf

        kinds = [device.device_type for device in tf.config.list_physical_devices()]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shown = {"CPU": f"{cores} CPU core{'s' * (cores != 1)}"}  # TensorFlow counts one CPU in all.
    return ", ".join(shown.get(k, f"{kinds.count(k)} {k}") for k in dict.fromkeys(kinds))


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command and exits: 0 when it finished, 2 with one line for a user's mistake.

    A signal that stops it is one line too, with exit code 128 + its number.

    A `UserError` and an `OSError` about a file are the user's mistakes. Any other exception is a
    bug: it shows its traceback, and the exit code is 1.

    Args:
      main: takes the arguments after the program's name.
    """
    try:
        with _stopping_signals():
            app.run(main, flags_parser=_leave_flags_to_main)
    except KeyboardInterrupt:
        _exit_with(_stopped_by(signal.SIGINT), 128 + signal.SIGINT)
    except Stopped as stopped:
        _exit_with(str(stopped), 128 + stopped.number)
    except UserError as error:
        # gin adds lines with the place of the configured call.
        _exit_with(str(error).splitlines()[0])
    except OSError as error:
        # Each configured call raises a copy without the file name; the original is its context.
        each: BaseException | None = error
        while each is not None:
            if isinstance(each, OSError) and each.filename is not None:
                _exit_with(f"{each.filename!r}: {each.strerror}")
            each = each.__context__
        raise
    raise AssertionError("app.run exits")


def _leave_flags_to_main(argv: Sequence[str]) -> Sequence[str]:
    flags.FLAGS.mark_as_parsed()  # absl's global flags, which the commands do not use.
    return argv[1:]


@contextlib.contextmanager
def _stopping_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped` outside of training, as SIGINT raises KeyboardInterrupt.

    SIGUSR1, which saves a checkpoint during training, does nothing.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise Stopped(_stopped_by(number), number)

    def ignore(*_: Any) -> None:
        pass

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for name, handler in (("SIGTERM", stop), ("SIGHUP", stop), ("SIGUSR1", ignore)):
            # Windows has not all of them; nohup ignores SIGHUP.
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _stopped_by(number: int) -> str:
    name = signal.Signals(number).name
    return (
        f"stopped by {name}; a training run continues from its last checkpoint by the same command"
    )


def _exit_with(message: str, code: int = 2) -> NoReturn:
    print(f"error: {message}" if code == 2 else message, file=sys.stderr)
    sys.exit(code)
