"""The stages of a run one after the other."""

import zipfile

import pytest

from supcon_tf import train
from supcon_tf.json_files import write_checksums
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment, linear
from tests.small_runs import SMALL


@pytest.mark.parametrize(
    "damage", [lambda file: file.write_text("grapj"), lambda file: file.unlink()]
)
def test_a_damaged_export_of_a_finished_run_is_made_again(damage, tmp_path, capsys):
    run_dir, repeated = RunDir(tmp_path), []
    for stage in ("pretrain", "linear"):
        run_dir.checkpoints(stage).mkdir(parents=True)
        with zipfile.ZipFile(run_dir.model(stage), "w") as archive:
            archive.writestr("weights", "1")
        run_dir.set_metrics(stage, {"seconds": 1.0})
    run_dir.export.mkdir()
    (run_dir.export / "saved_model.pb").write_text("graph")
    write_checksums(run_dir.export)

    def run():
        experiment.run(run_dir, configured=lambda stage: lambda _: repeated.append(stage))

    run()
    assert repeated == []
    damage(run_dir.export / "saved_model.pb")
    run()
    assert repeated == [linear.run]
    assert "export' is damaged: it is made again from the checkpoints of linear" in (
        capsys.readouterr().out
    )


def test_a_run_of_metrics_only_leaves_out_what_the_same_command_adds_later(
    image_folder, tmp_path, capsys
):
    bindings = (*SMALL, f"sources.folder.root = '{image_folder}'")
    command = [f"--gin_param={binding}" for binding in bindings]
    command += ["--gin_file=folder/supcon.gin", f"--workdir={tmp_path / 'run'}"]
    run_dir = RunDir(tmp_path / "run")
    left_out = [run_dir.report, run_dir.scored_split, run_dir.export, run_dir.view_sheet]

    train.main([*command, "--metrics_only"])
    only, written = run_dir.metrics(), capsys.readouterr().out
    assert not any(file.exists() for file in left_out)
    assert f"done: {run_dir.metrics_file}, linear top-1 " in written
    train.main([*command, "--metrics_only"])  # Nothing is missing.
    assert "linear: finished before" in capsys.readouterr().out

    train.main(command)
    assert "export' is missing: it is made again from the checkpoints" in capsys.readouterr().out
    assert all(file.exists() for file in left_out[:3])
    for stage, values in run_dir.metrics().items():
        assert values["loss"] == only[stage]["loss"]
        assert values["knn_top_1"] == only[stage]["knn_top_1"]
