"""A user's mistake is one line that names the value and the fix, and exit code 2."""

import subprocess
import sys

import pytest

from supcon_tf import cli, export, predict, train
from supcon_tf.config import parameter_values, parse
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from tests.small_runs import SMALL

FOLDER = "folder/supcon.gin"


def failure_of(main, *arguments, capsys):
    """Exit code and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda _: main(list(arguments)))
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--gin_file is needed"),
        (["--gin_file=digits/supcon.gin"], "--workdir is needed"),
        (["--gin_fil=digits/supcon.gin", "--workdirs=x"], "unrecognized arguments"),
        (["--gin_file=digits/supco.gin"], "no gin file 'digits/supco.gin'; did you mean 'digits/supcon.gin'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLos.temperature = 1"], "no 'SupConLos' in losses; did you mean 'SupConLoss'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLoss.temprature = 1"], "losses.SupConLoss has no parameter 'temprature'; did you mean 'temperature'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=loses.SupConLoss.temperature = 1"], "no module 'loses' to configure; did you mean 'losses'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=SORCE = 1"], "nothing uses the macro SORCE; did you mean 'SOURCE'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = %EPOCHS"], "the macro EPOCHS is used but not set"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = "], "pretrain.run.epochs ="),
        (["--gin_file=digits/supcon.gin", "--gin_param=sources.folder.root = /data/photos"], "Text needs quotes"),
        (["--gin_file=digits/supcon.gin", "--workdir=NEW", "--gin_param=experiment.run.stages = 'pretrain'"], "such as ('pretrain',), got 'pretrain'"),
        (["--gin_file=digits/supcon.gin", "--gin_param=experiment.run.stages = ('pretrain'"], "a bracket or quote is not closed"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = '3'"], "pretrain.run.epochs must be int, got '3'"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLoss.positives_cap = 2.0"], "losses.SupConLoss.positives_cap must be int or None, got 2.0"),
        (["--gin_file=digits/supcon.gin", "--gin_param=keras.optimizers.SGD.momentm = 0.9"], "keras.optimizers.SGD has no parameter 'momentm'; did you mean 'momentum'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=optimizers.LARS.momentun = 0.9"], "optimizers.LARS has no parameter 'momentun'; did you mean 'momentum'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.seed = -1"], "pretrain.run.seed must be >= 0, got -1"),
        (["--gin_file=digits/supcon.gin", "--gin_param=linear.run.batch_size = 0"], "linear.run.batch_size must be >= 1, got 0"),
        (["--gin_file=digits/supcon.gin", "--gin_param=experiment.run.stages = ('pretrain', 'finetune')"], "finetune.run.epochs is not set"),
        (["--gin_file=cifar10/linear.gin", "--workdir=NEW"], "or set linear.run.encoder (or finetune.run.encoder) to a run's folder"),
        (["--gin_file=imagenet/linear.gin", "--workdir=NEW", "--gin_param=linear.run.encoder = '/nowhere'"], "no encoder at '/nowhere'"),
        (["--gin_file=digits/supcon.gin", f"--workdir={__file__}"], f"{__file__!r}: File exists"),
        (["--gin_file=digits/supcon.gin", "--workdir=NEW", "--gin_param=SOURCE = @sources.tfds()"], "missing 1 required positional argument: 'name'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_command_is_one_line(arguments, says, tmp_path, capsys):
    arguments = [argument.replace("NEW", str(tmp_path / "run")) for argument in arguments]
    code, error = failure_of(train.main, *arguments, capsys=capsys)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("bindings", "says"),
    [
        ([], "sources.folder"),
        (["sources.folder.root = '/nowhere'"], "no folder '/nowhere'"),
        (["ROOT", "losses.SupConLoss.temperature = 0"], "temperature must be > 0, got 0"),
        (["ROOT", "losses.SupConLoss.positives_cap = 3"], "positives_cap must be a multiple of the 2 views, got 3"),
        (["ROOT", "pretrain.run.batch_size = 100"], "at most the 20 training images, got 100"),
        (["ROOT", "pretrain.run.batch_size = 0"], "pretrain.run.batch_size must be >= 1, got 0"),
        (["ROOT", "pretrain.run.precision = 'bfloat16'"], "pretrain.run.precision must be one of ('float32', "),
        (["ROOT", "pretrain.run.epochs = 0"], "epochs must be >= 1, got 0"),
        (["ROOT", "experiment.run.stages = ('pretran',)"], "experiment.run.stages must name some of"),
        (["ROOT", "models.contrastive_model.encoder = @models.resnet()", "models.resnet.depth = 19"], "depth must be one of"),
        (["ROOT", "experiment.run.stages = ('linear',)"], "no encoder at"),
        (["SOURCE = @sources.tfds()", "sources.tfds.name = 'cifar10'", "sources.tfds.data_dir = '/nowhere'"], "sources.tfds.download = True"),
        (["SOURCE = @sources.tfds()", "sources.tfds.name = 'cifar11'", "sources.tfds.data_dir = '/nowhere'"], "no TFDS set named 'cifar11'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_one_line(bindings, says, image_folder, tmp_path, capsys):
    bindings = [
        f"sources.folder.root = '{image_folder}'" if binding == "ROOT" else binding
        for binding in (*SMALL, *bindings)
    ]
    code, error = failure_of(
        train.main,
        f"--gin_file={FOLDER}",
        f"--workdir={tmp_path / 'run'}",
        *(f"--gin_param={binding}" for binding in bindings),
        capsys=capsys,
    )
    assert code == 2
    assert says in error
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in error


def test_a_run_that_failed_on_a_mistake_can_be_corrected_in_the_same_folder(
    image_folder, tmp_path, capsys
):
    for epochs, says in ((0, "got 0"), (-1, "got -1")):
        code, error = failure_of(
            train.main,
            f"--gin_file={FOLDER}",
            f"--workdir={tmp_path / 'run'}",
            f"--gin_param=sources.folder.root = '{image_folder}'",
            f"--gin_param=pretrain.run.epochs = {epochs}",
            "--gin_param=pretrain.run.batch_size = 8",
            capsys=capsys,
        )
        assert code == 2
        assert says in error


@pytest.mark.parametrize(
    ("main", "arguments", "says"),
    [
        (export.main, ["--workdir=/nowhere", "--output=/tmp/x"], "no trained model in '/nowhere'"),
        (predict.main, ["--export=/nowhere", "--images=/", "--output=/tmp/x.npz"], "no SavedModel in '/nowhere'"),
        (predict.main, ["--export=/nowhere", "--images=/", "--output=/tmp/x.txt"], "must end in .npz or .csv, got '/tmp/x.txt'"),
        (predict.main, ["--export=/nowhere", "--output=/tmp/x.npz"], "--images"),
    ],
)  # fmt: skip
def test_mistakes_in_export_and_predict_are_one_line(main, arguments, says, capsys):
    code, error = failure_of(main, *arguments, capsys=capsys)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ValueError, match="invalid literal"):
        cli.run(lambda _: int("not a number of ours"))


def test_print_config_shows_the_settings_and_writes_nothing(tmp_path, capsys):
    train.main(
        [
            "--gin_file=digits/supcon.gin",
            "--gin_param=losses.SupConLoss.temperature = 0.25",
            f"--workdir={tmp_path / 'run'}",
            "--print_config",
        ]
    )
    shown = capsys.readouterr().out
    assert "losses.SupConLoss.temperature = 0.25" in shown
    assert "models.resnet.depth = 18" in shown
    assert not (tmp_path / "run").exists()


def test_the_resolved_settings_parse_again_to_the_same(tmp_path):
    resolved = parse(["digits/supcon.gin"], ["pretrain.run.epochs = 7"])
    saved = tmp_path / "config.gin"
    saved.write_text(resolved)
    assert parse([str(saved)], []) == resolved


def test_importing_the_package_adds_nothing_heavy_to_keras():
    heavy = ("tensorflow_datasets", "sklearn", "bokeh", "matplotlib", "gin", "PIL")
    code = (
        "import sys, keras; before = set(sys.modules)\n"
        "import supcon_tf\n"
        "from supcon_tf import evaluation, losses, models, optimizers\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert listed.stdout.strip() == "[]"
    alone = "import sys, supcon_tf; print('tensorflow' in sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", alone], capture_output=True, text=True, check=True
    )
    assert listed.stdout.strip() == "False"


def test_help_teaches():
    shown = subprocess.run(
        [sys.executable, "-m", "supcon_tf.train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for taught in ("--gin_file", "--gin_param", "--workdir", "--print_config", "examples:"):
        assert taught in shown.stdout
    assert shown.stderr == ""


def test_settings_of_stages_to_come_may_change_and_others_may_not(tmp_path):
    folder = RunDir(tmp_path)
    files = ["digits/supcon.gin"]
    train.claim(folder, parse(files, []))
    folder.view_sheet.write_text("of an attempt that left no checkpoint")
    train.claim(folder, parse(files, ["views.simclr.strength = 0.1"]))
    assert not folder.view_sheet.exists()
    folder.checkpoints("pretrain").mkdir(parents=True)
    same = ["views.simclr.strength = 0.1"]
    stages = "experiment.run.stages = ('pretrain', 'linear', 'robustness')"
    for allowed in ([], ["linear.run.epochs = 3"], [stages]):
        train.claim(folder, parse(files, [*same, *allowed]))
    # It measures anew what it measured with others.
    folder.set_metrics("robustness", {"seconds": 1.0})
    train.claim(folder, parse(files, [*same, stages, "robustness.run.max_images = 3"]))
    for refused in ("pretrain.run.epochs = 3", "pretrain.run.seed = 3"):
        name, _, value = refused.split()
        with pytest.raises(ValueError, match=rf"{name} = \d+ instead of {value}: give another"):
            train.claim(folder, parse(files, [*same, refused]))
    with pytest.raises(ValueError, match=r"views.simclr.strength = 0.1 instead of 0.3"):
        train.claim(folder, parse(files, []))


def test_a_parameter_that_was_added_since_is_no_change(tmp_path):
    folder = RunDir(tmp_path)
    settings = parse(["digits/supcon.gin"], [])
    train.claim(folder, settings)
    folder.checkpoints("pretrain").mkdir(parents=True)
    lines = (tmp_path / "config.gin").read_text().splitlines(keepends=True)
    older = [line for line in lines if "pretrain.run.clip_norm" not in line]
    assert len(older) == len(lines) - 1
    (tmp_path / "config.gin").write_text("".join(older))
    with pytest.raises(ValueError, match=r"pretrain.run.clip_norm = None instead of 1.0"):
        train.claim(folder, parse(["digits/supcon.gin"], ["pretrain.run.clip_norm = 1.0"]))
    train.claim(folder, settings)


def test_a_macro_may_stand_for_encoder_and_stages(tmp_path):
    encoder = tmp_path / "model.keras"
    encoder.touch()
    bindings = [f"ENCODER = '{encoder}'", "STAGES = ('linear',)"]
    used = ["linear.run.encoder = %ENCODER", "experiment.run.stages = %STAGES"]
    parse(["digits/supcon.gin"], [*bindings, *used])
    assert train.named_stages() == ("linear",)
    train.check_encoder(RunDir(tmp_path))
    encoder.unlink()
    with pytest.raises(UserError, match="no encoder at"):
        train.check_encoder(RunDir(tmp_path))
    with pytest.raises(ValueError, match=r"pretrain.run.epochs must be int, got 'ten'"):
        parse(["digits/supcon.gin"], ["EPOCHS = 'ten'", "pretrain.run.epochs = %EPOCHS"])


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from encoders_of_mine import small_ones as encoders", "encoders.small"),
        ("from encoders_of_mine import small_ones", "small_ones.small"),
        ("import encoders_of_mine.small_ones", "encoders_of_mine.small_ones.small"),
        ("import encoders_of_mine.small_ones as mine  # a remark", "mine.small"),
    ],
)
def test_a_file_may_import_what_the_user_wrote(line, name, tmp_path, monkeypatch):
    package = tmp_path / "encoders_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "small_ones.py").write_text("def small(depth=1):\n    return depth\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "mine.gin"
    file.write_text(f"{line}\ninclude 'digits/supcon.gin'\n{name}.depth = 2\n")
    shown = parse([str(file)], [f"models.contrastive_model.encoder = @{name}()"])
    assert "small.depth = 2" in shown
    with pytest.raises(ValueError, match=f"{name} has no parameter 'dept'; did you mean 'depth'"):
        parse([str(file)], [f"{name}.dept = 2"])


def test_a_changed_macro_is_a_changed_setting(tmp_path):
    folder = RunDir(tmp_path)
    file = "semi/simclr_cifar10_resnet18.gin"
    train.claim(folder, parse([file], []))
    folder.checkpoints("pretrain").mkdir(parents=True)
    # Fine-tuning has not begun.
    train.claim(folder, parse([file], ["finetune.run.source = %SOURCE"]))
    with pytest.raises(ValueError, match=r"pretrain.run.source = @sources.tfds\(\) instead of @s"):
        train.claim(folder, parse([file], ["SOURCE = @sources.digits()"]))


def test_a_folder_with_results_only_is_not_taken_over(tmp_path):
    folder = RunDir(tmp_path)
    train.claim(folder, parse(["digits/supcon.gin"], []))
    folder.set_metrics("robustness", {"seconds": 1.0})
    with pytest.raises(ValueError, match="holds a run with other settings"):
        train.claim(folder, parse(["digits/supcon.gin"], ["views.simclr.strength = 0.1"]))


def test_included_files_are_found_from_where_they_stand(tmp_path, monkeypatch):
    own = tmp_path / "gin_configs" / "mine"
    own.mkdir(parents=True)
    (own / "base.gin").write_text('include "digits/supcon.gin"  # the shipped one\n')
    (own / "run.gin").write_text("include 'mine/base.gin'\npretrain.run.epochs = 7\n")
    (own / "loop.gin").write_text("include 'mine/loop.gin'\n")
    expected = parse(["digits/supcon.gin"], ["pretrain.run.epochs = 7"])
    for folder in (tmp_path, own):
        monkeypatch.chdir(folder)
        assert parse([str(own / "run.gin")], []) == expected
    with pytest.raises(ValueError, match="includes itself"):
        parse([str(own / "loop.gin")], [])


def test_the_shown_settings_hold_the_defaults_too():
    shown = parameter_values(parse(["digits/supcon.gin"], ["losses.SupConLoss.temperature = 0.2"]))
    assert shown["losses.SupConLoss.temperature"] == "0.2"
    assert shown["losses.SupConLoss.summation"] == "'outside'"
    assert shown["models.contrastive_model.projection"] == "(128, 128)"
    assert shown["pretrain.run.seed"] == "0"
