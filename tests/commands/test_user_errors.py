"""A user's mistake is one line that names the value and the fix, and exit code 2."""

import pytest

from supcon_tf import cli, export, predict, train
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
        (["digits/supcon.gin"], "unexpected argument 'digits/supcon.gin'"),
        (["--gin_file=digits/supcon.gin", "--workdir"], "Missing value for flag --workdir"),
        (["--gin_file=digits/supcon.gin"], "--workdir is needed"),
        (["--gin_fil=digits/supcon.gin"], "Unknown command line flag 'gin_fil'. Did you mean: gin_file ?"),
        (["--gin_file=digits/supco.gin"], "no gin file 'digits/supco.gin'; did you mean 'digits/supcon.gin'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLos.temperature = 1"], "no 'SupConLos' in losses; did you mean 'SupConLoss'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLoss.temprature = 1"], "losses.SupConLoss has no parameter 'temprature'; did you mean 'temperature'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=loses.SupConLoss.temperature = 1"], "no module 'loses' to configure; did you mean 'losses'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=SORCE = 1"], "nothing uses the macro SORCE; did you mean 'SOURCE'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = %EPOCHS"], "the macro EPOCHS is used but not set"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = "], "pretrain.run.epochs ="),
        (["--gin_file=digits/supcon.gin", "--gin_param=sources.folder.root = /data/photos"], "Text needs quotes"),
        (["--gin_file=digits/supcon.gin", "--workdir=NEW", "--gin_param=experiment.run.stages = 'pretrain'"], "must be (str, ...), got 'pretrain': such as ('pretrain', 'linear')"),
        (["--gin_file=digits/supcon.gin", "--gin_param=experiment.run.stages = ('pretrain'"], "a bracket or quote is not closed"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.epochs = '3'"], "pretrain.run.epochs must be int, got '3'"),
        (["--gin_file=digits/supcon.gin", "--gin_param=losses.SupConLoss.positives_cap = 2.0"], "losses.SupConLoss.positives_cap must be int or None, got 2.0"),
        (["--gin_file=digits/supcon.gin", "--gin_param=keras.optimizers.SGD.momentm = 0.9"], "keras.optimizers.SGD has no parameter 'momentm'; did you mean 'momentum'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=optimizers.LARS.momentun = 0.9"], "optimizers.LARS has no parameter 'momentun'; did you mean 'momentum'?"),
        (["--gin_file=digits/supcon.gin", "--gin_param=pretrain.run.seed = -1"], "pretrain.run.seed must be an integer >= 0, got -1"),
        (["--gin_file=digits/supcon.gin", "--gin_param=linear.run.batch_size = 0"], "linear.run.batch_size must be an integer >= 1, got 0"),
        (["--gin_file=digits/supcon.gin", "--gin_param=experiment.run.stages = ('pretrain', 'finetune')"], "finetune.run.epochs is not set"),
        (["--gin_file=cifar10/linear.gin", "--workdir=NEW"], "or set linear.run.encoder (or finetune.run.encoder) to a run directory"),
        (["--gin_file=imagenet/linear.gin", "--workdir=NEW", "--gin_param=linear.run.encoder = '/nowhere'"], "no encoder at '/nowhere'"),
        (["--gin_file=digits/supcon.gin", f"--workdir={__file__}"], f"{__file__!r}: File exists"),
        (["--gin_file=digits/supcon.gin", "--workdir=NEW", "--gin_param=SOURCE = @sources.tfds()"], "sources.tfds.name is not set: add --gin_param="),
    ],
)  # fmt: skip
def test_wrong_arguments_give_one_line(arguments, says, tmp_path, capsys):
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
        (["ROOT", "losses.SupConLoss.temperature = 0"], "temperature must be a number > 0, got 0"),
        (["sources.folder.root = '~nobody_of_this_name/x'"], "'~nobody_of_this_name/x' names a user without a home directory"),
        (["ROOT", "pretrain.run.seed = 18446744073709551616"], "pretrain.run.seed must be below 2^32"),
        (["ROOT", "losses.SupConLoss.temperature = 1e400"], "1e400 is too large for a number in: losses.SupConLoss.temperature = 1e400"),
        (["ROOT", "losses.SupConLoss.reduction = 'avg'"], "reduction must be one of"),
        (["ROOT", "losses.SupConLoss.positives_cap = 3"], "positives_cap must be a multiple of the 2 views, got 3"),
        (["ROOT", "pretrain.run.batch_size = 100"], "at most the 19 training images, got 100"),
        (["ROOT", "pretrain.run.batch_size = 0"], "pretrain.run.batch_size must be an integer >= 1, got 0"),
        (["ROOT", "pretrain.run.precision = 'bfloat16'"], "pretrain.run.precision must be one of ('float32', "),
        (["ROOT", "pretrain.run.epochs = 0"], "epochs must be an integer >= 1, got 0"),
        (["ROOT", "experiment.run.stages = ('pretran',)"], "experiment.run.stages must be some of"),
        (["ROOT", "models.contrastive_model.encoder = @models.resnet()", "models.resnet.depth = 19"], "depth must be one of"),
        (["ROOT", "experiment.run.stages = ('linear',)"], "no encoder at"),
        (["SOURCE = @sources.tfds()", "sources.tfds.name = 'cifar10'", "sources.tfds.data_dir = '/nowhere'"], "sources.tfds.download = True"),
        (["SOURCE = @sources.tfds()", "sources.tfds.name = 'cifar11'", "sources.tfds.data_dir = '/nowhere'"], "no TFDS set named 'cifar11'"),
    ],
)  # fmt: skip
def test_wrong_settings_give_one_line(bindings, says, image_folder, tmp_path, capsys):
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


def test_a_run_that_failed_on_wrong_settings_can_be_corrected_in_the_same_directory(
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
        (predict.main, ["--export=/nowhere", "--images=/", "--output=/tmp/x.txt"], "must end in .npz, .csv or .parquet, got '/tmp/x.txt'"),
        (predict.main, ["--export=/nowhere", "--output=/tmp/x.npz"], "--images is needed"),
        (predict.main, ["--export=/", "--images=/", "--output=/tmp/x.npz", "--batch_size=0"], "0 is not a positive integer"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_export_and_predict_give_one_line(main, arguments, says, capsys):
    code, error = failure_of(main, *arguments, capsys=capsys)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1
