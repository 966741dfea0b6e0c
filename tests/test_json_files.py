"""JSON files of a run directory that have changed since they were written."""

import json
import os
import shutil

import pytest

from supcon_tf.errors import UserError
from supcon_tf.json_files import move_checked_json, read_json, write_checked_json
from supcon_tf.run_dir import RunDir

CHANGED = "is damaged .changed since it was written.: remove it, and the same command"


def flip_digit(file):
    """Changes a digit, so that the file is still valid JSON."""
    text = file.read_text()
    assert "5" in text
    file.write_text(text.replace("5", "4", 1))


@pytest.fixture
def run_dir(tmp_path):
    folder = RunDir(tmp_path)
    folder.set_metrics("pretrain", {"loss": 0.5})
    folder.set_normalization([0.5], [0.25])
    folder.set_curve("pretrain", [{"step": 5}])
    return folder


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("metrics", RunDir.metrics),
        ("normalization", RunDir.normalization),
        ("curves", lambda run_dir: run_dir.curve("pretrain")),
    ],
)
def test_a_changed_digit_is_named(run_dir, name, read):
    read(run_dir)
    flip_digit(run_dir.root / f"{name}.json")
    with pytest.raises(UserError, match=f"{name}.json' {CHANGED}"):
        read(run_dir)
    # The checksums are not those of the changed file after another one is written.
    write_checked_json(run_dir.root / "other.json", {})
    with pytest.raises(UserError, match=CHANGED):
        read(run_dir)
    (run_dir.root / "checksums.json").unlink()
    read(run_dir)


def test_a_removed_file_is_made_again(run_dir):
    run_dir.metrics_file.unlink()
    assert run_dir.metrics() == {}
    run_dir.set_metrics("pretrain", {"loss": 0.75})
    assert run_dir.metrics() == {"pretrain": {"loss": 0.75}}


def test_a_run_of_an_older_version_is_read_and_then_has_checksums(run_dir):
    (run_dir.root / "checksums.json").unlink()
    run_dir.set_metrics("linear", {"loss": 0.25})
    assert set(run_dir.metrics()) == {"pretrain", "linear"}
    assert run_dir.normalization() == ((0.5,), (0.25,))
    flip_digit(run_dir.metrics_file)
    with pytest.raises(UserError, match=CHANGED):
        run_dir.metrics()


def test_kills_between_the_checksum_and_the_file_leave_the_old_file(run_dir, monkeypatch):
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == "metrics.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    for loss in (0.25, 0.75):  # The second one is not the content of the file either.
        with pytest.raises(KeyboardInterrupt):
            run_dir.set_metrics("pretrain", {"loss": loss})
        assert run_dir.metrics() == {"pretrain": {"loss": 0.5}}
    monkeypatch.undo()
    run_dir.set_metrics("pretrain", {"loss": 0.25})
    assert run_dir.metrics() == {"pretrain": {"loss": 0.25}}
    assert len(read_json(run_dir.root / "checksums.json")["metrics.json"]) == 2


def test_a_changed_file_is_not_accepted_when_it_is_replaced(run_dir):
    flip_digit(run_dir.normalization_file)
    changed = run_dir.normalization_file.read_text()
    run_dir.set_normalization([0.1], [0.2])
    run_dir.normalization_file.write_text(changed)  # As after a kill before it was replaced.
    with pytest.raises(UserError, match=CHANGED):
        run_dir.normalization()


def test_a_moved_file_keeps_its_checksum(tmp_path):
    source, target = tmp_path / "next.json", tmp_path / "robustness.json"
    write_checked_json(target, {"error": 0.25})
    write_checked_json(source, {"error": 0.5})
    move_checked_json(source, target)
    assert read_json(target) == {"error": 0.5}
    flip_digit(target)
    with pytest.raises(UserError, match=CHANGED):
        read_json(target)


@pytest.mark.parametrize("text", ["", "[]", '{"metrics.json": 5}'])
def test_damaged_checksums_are_named(run_dir, text):
    (run_dir.root / "checksums.json").write_text(text)
    with pytest.raises(UserError, match=r"checksums.json' is damaged.*: remove it, and the same"):
        run_dir.metrics()


def test_metrics_are_one_object_per_stage_for_other_programs(run_dir):
    assert json.loads(run_dir.metrics_file.read_text()) == {"pretrain": {"loss": 0.5}}


def test_a_copied_run_is_intact(run_dir, tmp_path):
    copy = RunDir(shutil.copytree(run_dir.root, tmp_path / "copy"))
    assert copy.metrics() == run_dir.metrics()
