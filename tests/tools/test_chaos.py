"""The judge of broken runs: what it calls identical, and how it breaks files."""

import keras
import numpy as np
import pytest

from supcon_tf.run_dir import RunDir
from tools.chaos import results, runs


def finished(folder, *, kernel=1.0, loss=0.5, seconds=1.0):
    """A run directory with the results of two stages."""
    run_dir = RunDir(folder)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[kernel], [2.0]], np.float32)])
    for stage in results.STAGES:
        run_dir.checkpoints(stage).mkdir(parents=True)
        model.save(run_dir.model(stage))
        run_dir.set_curve(stage, [{"epoch": 1, "loss": loss, "seconds": seconds}])
        run_dir.set_metrics(stage, {"loss": loss, "seconds": seconds})
    run_dir.export.mkdir()
    for file in (run_dir.report, run_dir.export / "saved_model.pb"):
        file.write_text("</html>")
    return folder


def test_runs_that_differ_in_their_times_only_are_identical(tmp_path):
    whole = finished(tmp_path / "whole")
    assert results.difference(whole, finished(tmp_path / "other", seconds=2.0)) == ""


@pytest.mark.parametrize(
    ("options", "found"), [({"kernel": 1.0000001}, "pretrain "), ({"loss": 0.50000001}, "curves")]
)
def test_the_last_bit_is_a_difference(tmp_path, options, found):
    whole = finished(tmp_path / "whole")
    assert results.difference(whole, finished(tmp_path / "other", **options)).startswith(found)


def test_a_run_without_its_report_or_with_a_torn_curve_is_not_identical(tmp_path):
    whole, other = finished(tmp_path / "whole"), finished(tmp_path / "other")
    (other / "report.html").write_text("<html>")
    assert results.difference(whole, other) == "report is torn"
    (other / "report.html").unlink()
    assert results.difference(whole, other) == "report or export missing"
    (other / "curves.json").write_text("{")
    assert results.difference(whole, other).startswith("JSONDecodeError")


@pytest.mark.parametrize("name", runs.DAMAGES)
def test_a_damage_changes_the_file(tmp_path, name):
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    runs.DAMAGES[name](file)
    assert not file.exists() or file.read_bytes() != b"0123456789"


def test_results_are_kept_and_counted(tmp_path, tool):
    for _ in range(2):
        cases = tool("chaos/cases").Chaos(tmp_path, "")
        for name in ("first", "second"):
            cases.case("kill", name, lambda folder: ("identical", folder.name))
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
    assert cases.table() == "kill             2 cases: 2 identical"
