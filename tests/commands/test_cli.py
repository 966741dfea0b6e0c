"""What the commands share: exit codes, help, and that importing them starts nothing."""

import os
import signal
import subprocess
import sys

import gin
import pytest

from supcon_tf import audit, cli, evaluate, export, index, predict, report, study, train
from supcon_tf.errors import UserError

COMMANDS = {
    train: (
        "--gin_file",
        "--gin_param",
        "--workdir",
        "--print_config",
        "--debug",
        "--deterministic",
        "--trust",
        "--keep_test_split",
        "--metrics_only",
    ),
    evaluate: ("--workdir", "--gin_file", "--gin_param", "--output"),
    export: ("--workdir", "--output"),
    predict: (
        "--export",
        "--images",
        "--output",
        "--index",
        "--projector",
        "--num_neighbors",
        "--batch_size",
        "--calibrated",
    ),
    index: ("--export", "--images", "--output", "--calibration_images", "--unknown_images"),
    audit: ("--workdir", "--output", "--num_neighbors", "--duplicate_similarity"),
    report: ("--workdir", "--map_points"),
    study: ("--gin_file", "--gin_param", "--workdir", "--list", "--metrics_only"),
}


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def raising(error):
    def main(_):
        raise error

    return main


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="invalid literal"):
        cli.run(lambda _: int("a ValueError of Python"))
    with pytest.raises(OSError, match="no file name"):
        cli.run(raising(OSError("no file name")))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UserError("epochs must be >= 1\nIn call to configurable"), "error: epochs must be >= 1\n"),
        (FileNotFoundError(2, "No such file", "/nowhere"), "error: '/nowhere': No such file\n"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(error, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(raising(error))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == says


def test_an_error_about_a_file_keeps_its_name_through_gin(capsys):
    def main(_):
        with gin.unlock_config():
            opening = gin.external_configurable(open, "open_a_file")
            # A stage is called by an experiment.
            gin.external_configurable(lambda: opening("/nowhere"), "call_it")()

    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: '/nowhere': No such file or directory\n"


def test_ctrl_c_says_how_to_continue(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(raising(KeyboardInterrupt()))
    assert stopped.value.code == 130
    assert "continues from its last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_outside_of_training_is_one_line(number, capsys):
    def main(_):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    assert stopped.value.code == 128 + number
    assert capsys.readouterr().err == (
        f"stopped by {number.name}; a training run continues from its last checkpoint by the same "
        "command\n"
    )
    assert signal.getsignal(number) is before


def test_a_finished_command_exits_with_0():
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda _: None)
    assert not stopped.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_starts_with_examples_and_the_commands_flags(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown.split("flags:")[0]
    names = [line.split()[0] for line in shown.splitlines() if line.startswith("  --")]
    assert set(names[: len(COMMANDS[command])]) == set(COMMANDS[command])
    assert "--verbosity" in names
    assert len(shown.splitlines()) < 45


def test_help_and_a_bare_command_of_a_process():
    shown = run_python("-m", "supcon_tf.train", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    bare = run_python("-m", "supcon_tf.train")
    assert bare.returncode == 2
    assert bare.stderr == ("error: --gin_file is needed, such as --gin_file=digits/supcon.gin\n")


def test_importing_the_package_and_its_commands_starts_nothing():
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import supcon_tf; assert 'tensorflow' not in sys.modules\n"
        "from supcon_tf import audit, cli, evaluate, export, index, predict, report, study, train\n"
        "print('tensorflow' in sys.modules, dict(os.environ) == before)"
    )
    assert run_python("-c", code).stdout.split() == ["False", "True"]


def test_tensorflow_starts_quietly_and_with_onednn_and_the_package_adds_nothing_heavy_to_keras():
    heavy = ("tensorflow_datasets", "sklearn", "bokeh", "matplotlib", "gin", "PIL")
    code = (
        "import os, sys; from supcon_tf import cli; early = set(sys.modules)\n"
        "print(cli.start_tensorflow(), os.environ['TF_ENABLE_ONEDNN_OPTS'])\n"
        "import keras; of_keras = set(sys.modules) - early\n"
        "from supcon_tf import evaluation, losses, models, optimizers\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - of_keras])"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    started = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean
    )
    assert started.stderr == ""
    devices, added = started.stdout.splitlines()
    assert devices.endswith((" CPU core 1", " CPU cores 1"))
    assert added == "[]"
