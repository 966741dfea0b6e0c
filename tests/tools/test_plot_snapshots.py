"""Accuracy against epochs: table and picture of several runs."""

import pytest

from supcon_tf.errors import UserError
from tools import plot_snapshots

LINES = {"SimCLR": {2: 0.4, 4: 0.5}, "SuNCEt": {1: 0.3, 4: 0.6}}


def test_table_has_a_column_per_epoch():
    head, *rows = (line.split() for line in plot_snapshots.table(LINES).splitlines())
    assert head == ["1", "2", "4"]
    assert rows == [
        ["SimCLR", "-", "0.4000", "0.5000", "0.5000", "at", "epoch", "4"],
        ["SuNCEt", "0.3000", "-", "0.6000", "0.5000", "at", "epoch", "4"],
    ]


def test_plot_has_a_line_per_run(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot.Axes, "plot", lambda *_, label, **__: drawn.append(label))
    drawn: list[str] = []
    lines = {f"run {number}": {1: 0.5} for number in range(8)}
    plot_snapshots.plot(str(tmp_path / "epochs.png"), {"kNN": lines, "fine-tuned": lines}, "")
    assert drawn == [*lines, *lines]


def test_processes_below_one_are_rejected():
    with pytest.raises(UserError, match="0 is not a positive integer"):
        plot_snapshots.main(["--run=a=b", "--processes=0"])
