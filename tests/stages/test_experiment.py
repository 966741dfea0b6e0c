"""The stages of a run one after the other."""

import zipfile

import pytest

from supcon_tf.json_files import write_checksums
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment, linear


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
