"""Checks before a run starts, and which settings may change when it resumes."""

import keras
import pytest

from supcon_tf import run_checks
from supcon_tf.config import parse
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.encoder_io import encoder_digest


def test_only_settings_of_stages_that_have_not_started_may_change(tmp_path):
    folder = RunDir(tmp_path)
    files = ["digits/supcon.gin"]
    run_checks.prepare(folder, parse(files, []))
    folder.view_sheet.write_text("of an attempt that left no checkpoint")
    run_checks.prepare(folder, parse(files, ["views.simclr.strength = 0.1"]))
    assert not folder.view_sheet.exists()
    folder.checkpoints("pretrain").mkdir(parents=True)
    same = ["views.simclr.strength = 0.1"]
    stages = "experiment.run.stages = ('pretrain', 'linear', 'robustness')"
    for allowed in ([], ["linear.run.epochs = 3"], [stages]):
        run_checks.prepare(folder, parse(files, [*same, *allowed]))
    # The robustness stage repeats measurements with other settings.
    folder.set_metrics("robustness", {"seconds": 1.0})
    run_checks.prepare(folder, parse(files, [*same, stages, "robustness.run.max_images = 3"]))
    for refused in ("pretrain.run.epochs = 3", "pretrain.run.seed = 3"):
        name, _, value = refused.split()
        with pytest.raises(ValueError, match=rf"{name} = \d+ instead of {value}: give another"):
            run_checks.prepare(folder, parse(files, [*same, refused]))
    with pytest.raises(ValueError, match=r"views.simclr.strength = 0.1 instead of 0.3"):
        run_checks.prepare(folder, parse(files, []))


def test_a_parameter_newer_than_the_run_is_not_a_change(tmp_path):
    folder = RunDir(tmp_path)
    settings = parse(["digits/supcon.gin"], [])
    run_checks.prepare(folder, settings)
    folder.checkpoints("pretrain").mkdir(parents=True)
    lines = (tmp_path / "config.gin").read_text().splitlines(keepends=True)
    older = [line for line in lines if "pretrain.run.clip_norm" not in line]
    assert len(older) == len(lines) - 1
    (tmp_path / "config.gin").write_text("".join(older))
    with pytest.raises(ValueError, match=r"pretrain.run.clip_norm = None instead of 1.0"):
        run_checks.prepare(folder, parse(["digits/supcon.gin"], ["pretrain.run.clip_norm = 1.0"]))
    run_checks.prepare(folder, settings)


def test_macros_are_resolved_before_encoder_and_stages_are_checked(tmp_path):
    encoder = tmp_path / "model.keras"
    encoder.touch()
    bindings = [f"ENCODER = '{encoder}'", "STAGES = ('linear',)"]
    used = ["linear.run.encoder = %ENCODER", "experiment.run.stages = %STAGES"]
    parse(["digits/supcon.gin"], [*bindings, *used])
    assert run_checks.named_stages() == ("linear",)
    run_checks.check_encoder(RunDir(tmp_path))
    encoder.unlink()
    with pytest.raises(UserError, match="no encoder at"):
        run_checks.check_encoder(RunDir(tmp_path))
    with pytest.raises(ValueError, match=r"pretrain.run.epochs must be int, got 'ten'"):
        parse(["digits/supcon.gin"], ["EPOCHS = 'ten'", "pretrain.run.epochs = %EPOCHS"])


def test_stages_normalize_images_as_pretraining(tmp_path):
    file = "semi/simclr_cifar10_resnet18.gin"
    run_checks.check_stages(parse([file], []))
    run_checks.check_stages(parse([file], ["NORMALIZATION = None"]))
    message = "the encoder is trained with views.Preprocessing.normalization = None, and finetune h"
    with pytest.raises(UserError, match=message):
        run_checks.check_stages(parse([file], ["views.Preprocessing.normalization = None"]))
    # Equal values, which gin writes in other ways.
    same = "((-0.017212, -0.035612, -0.107012), (0.404612, 0.398812, 0.402012))"
    names = ("views.Preprocessing.normalization", "finetune/views.Preprocessing.normalization")
    run_checks.check_stages(parse([file], [f"{name} = {same}" for name in names]))
    run_checks.check_stages(parse([file], ["views.Preprocessing.normalization = 'measure'"]))


def test_an_encoder_that_changed_after_the_stage_started_is_rejected(tmp_path):
    encoder = tmp_path / "encoder.keras"
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    model.save(encoder)
    stages = "experiment.run.stages = ('linear',)"
    parse(["digits/supcon.gin"], [f"linear.run.encoder = {str(encoder)!r}", stages])
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    run_dir.set_encoder("linear", {"digest": encoder_digest(encoder)})
    run_checks.check_encoder(run_dir)
    model.layers[-1].bias.assign([1.0, 2.0])
    model.save(encoder)
    with pytest.raises(UserError, match=r"encoder.keras' has changed since linear of .*run' start"):
        run_checks.check_encoder(run_dir)
    # A finished stage does not need the file any more.
    encoder.unlink()
    run_dir.set_metrics("linear", {"top_1": 0.5})
    run_checks.check_encoder(run_dir)


def test_a_changed_macro_is_a_changed_setting(tmp_path):
    folder = RunDir(tmp_path)
    file = "semi/simclr_cifar10_resnet18.gin"
    run_checks.prepare(folder, parse([file], []))
    folder.checkpoints("pretrain").mkdir(parents=True)
    # Fine-tuning has not started.
    run_checks.prepare(folder, parse([file], ["finetune.run.source = %SOURCE"]))
    with pytest.raises(ValueError, match=r"pretrain.run.source = @sources.tfds\(\) instead of @s"):
        run_checks.prepare(folder, parse([file], ["SOURCE = @sources.digits()"]))


def test_a_directory_with_results_of_other_settings_is_rejected(tmp_path):
    folder = RunDir(tmp_path)
    run_checks.prepare(folder, parse(["digits/supcon.gin"], []))
    folder.set_metrics("robustness", {"seconds": 1.0})
    with pytest.raises(ValueError, match="holds a run with other settings"):
        run_checks.prepare(folder, parse(["digits/supcon.gin"], ["views.simclr.strength = 0.1"]))


@pytest.mark.parametrize(
    ("left", "problem"), [(None, "missing or empty"), (0, "missing or empty"), (400, "damaged")]
)
def test_a_run_whose_settings_are_lost_is_not_resumed(tmp_path, left, problem):
    folder = RunDir(tmp_path)
    settings = parse(["digits/supcon.gin"], [])
    run_checks.prepare(folder, settings)
    folder.checkpoints("pretrain").mkdir(parents=True)
    if left is None:
        folder.config.unlink()
    else:
        folder.config.write_text(settings[:left])
    with pytest.raises(UserError, match=f"config.gin' is {problem}, so that the settings of"):
        run_checks.prepare(folder, settings)


def test_settings_that_have_not_changed_are_not_written_again(tmp_path):
    folder = RunDir(tmp_path)
    settings = parse(["digits/supcon.gin"], [])
    run_checks.prepare(folder, settings)
    folder.checkpoints("pretrain").mkdir(parents=True)
    before = folder.config.stat()
    run_checks.prepare(folder, settings)
    after = folder.config.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_report_that_cannot_be_written_is_told_after_the_results(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device", str(tmp_path / "report.html"))

    monkeypatch.setattr(run_checks, "write_report", full)
    with pytest.raises(UserError, match=r"has finished, but its report .*No space left.*html"):
        run_checks.report(RunDir(tmp_path))


def test_the_last_line_has_the_accuracies_of_the_last_classifier(tmp_path):
    folder = RunDir(tmp_path)
    assert run_checks.accuracies(folder) == ""
    folder.set_metrics("pretrain", {"loss": 1.0, "probe_top_1": 0.5, "knn_top_1": 0.625})
    assert run_checks.accuracies(folder) == "pretrain probe 0.500, kNN 0.625"
    folder.set_metrics("linear", {"top_1": 0.75, "top_5": 1.0, "knn_top_1": 0.625})
    folder.set_metrics("robustness", {"seconds": 1.0})
    assert run_checks.accuracies(folder) == "linear top-1 0.750, kNN 0.625"


def test_the_last_line_has_the_frozen_accuracies_of_the_same_encoder_only(tmp_path):
    folder = RunDir(tmp_path)
    folder.set_encoder(
        "pretrain", {"frozen": {"frozen_knn_top_1": 0.5, "frozen_linear_top_1": 0.25}}
    )
    folder.set_metrics("pretrain", {"top_1": 0.5})
    folder.set_metrics("linear", {"top_1": 0.75})
    trained = "linear top-1 0.750"
    # The linear stage takes the encoder that this run has pretrained, then one from elsewhere.
    assert run_checks.accuracies(folder) == f"{trained}; frozen encoder top-1 0.250, kNN 0.500"
    folder.set_encoder("linear", {"name": "another"})
    assert run_checks.accuracies(folder) == trained
