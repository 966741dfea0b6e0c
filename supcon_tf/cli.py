"""What the commands share: flags, one-line errors for a user's mistakes, a quiet TensorFlow.

Each command has its own `FlagValues`, apart from absl's global ones, so that several commands can
run in one process. Importing this module does not import TensorFlow.
"""

import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from supcon_tf.errors import UserError

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


def start_tensorflow() -> str:
    """Imports TensorFlow quietly and returns its devices, as "1 CPU, 2 GPU".

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
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def run(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command and exits: 0 when it finished, 2 with one line for a user's mistake.

    A `UserError` and an `OSError` about a file are the user's mistakes. Any other exception is a
    bug: it shows its traceback, and the exit code is 1.

    Args:
      main: takes the arguments after the program's name.
    """
    try:
        app.run(main, flags_parser=_leave_flags_to_main)
    except KeyboardInterrupt:
        sys.exit("stopped; a training run continues from its last checkpoint by the same command")
    except UserError as error:
        # gin adds lines with the place of the configured call.
        _exit_with(str(error).splitlines()[0])
    except OSError as error:
        # gin raises a copy without the file name; the original is its context.
        for each in (error, error.__context__):
            if isinstance(each, OSError) and each.filename is not None:
                _exit_with(f"{each.filename!r}: {each.strerror}")
        raise
    raise AssertionError("app.run exits")


def _leave_flags_to_main(argv: Sequence[str]) -> Sequence[str]:
    flags.FLAGS.mark_as_parsed()  # absl's global flags, which the commands do not use.
    return argv[1:]


def _exit_with(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
