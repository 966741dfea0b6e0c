"""Pretraining on images without labels."""

import shutil

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from tests.small_runs import run


@pytest.fixture
def unlabelled(photos, tmp_path):
    """All photos in one folder, without a folder per class."""
    root = tmp_path / "unlabelled"
    root.mkdir()
    for file in photos.glob("*/*.png"):
        shutil.copy(file, root)
    return root


def test_simclr_trains_without_labels_and_later_stages_are_skipped(unlabelled, tmp_path, capsys):
    run_dir = RunDir(tmp_path / "run")
    settings = (
        f"sources.folder.root = '{unlabelled}'",
        "sources.folder.test_share = 0.4",  # The test loss needs a batch of test images.
        "pretrain.run.loss = @losses.SimCLRLoss()",
        "pretrain.run.snapshot_every = 1",
    )
    run(run_dir.root, *settings)
    said = capsys.readouterr().out
    assert "no neighbour classifiers and no probe, the images have no labels" in said
    assert "linear: skipped" in said
    metrics = run_dir.metrics()
    assert set(metrics) == {"pretrain"}
    assert set(metrics["pretrain"]) == {"loss", "test_loss", "seconds", "images_per_second"}
    assert np.isfinite(metrics["pretrain"]["loss"])
    assert run_dir.model("pretrain", epoch=1).is_file()
    assert run_dir.report.is_file()
    assert not (run_dir.export / "labels.txt").exists()


def test_a_loss_of_labels_is_rejected(unlabelled, tmp_path):
    with pytest.raises(UserError, match=r"SupConLoss needs labels, .* has none: take @losses.Sim"):
        run(tmp_path / "run", f"sources.folder.root = '{unlabelled}'")
