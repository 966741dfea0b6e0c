"""Accuracy against epochs and views: tables and pictures of several runs."""

import pytest

from supcon_tf import config
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from tools import plot_snapshots

LINES = {"SimCLR": {2: 0.4, 4: 0.5}, "SuNCEt": {1: 0.3, 4: 0.6}, "SwAV": {1: 0.2, 2: 0.4}}
VIEWS = {"SimCLR": {2: 1.0, 4: 2.0}, "SuNCEt": {1: 0.75, 4: 1.5}, "SwAV": {1: 2.0, 2: 4.0}}


def test_table_has_a_column_per_epoch_and_the_views_saved():
    head, *rows = (line.split() for line in plot_snapshots.table(LINES, VIEWS).splitlines())
    assert head == ["epoch", "1", "2", "4"]
    assert [" ".join(row) for row in rows] == [
        "SimCLR - 0.4000 0.5000 0.5000 at epoch 4",
        "SuNCEt 0.3000 - 0.6000 0.5000 at epoch 4, 25 % of the views saved",
        "SwAV 0.2000 0.4000 - never 0.5000",
    ]


def test_more_views_are_not_called_saved():
    views = VIEWS | {"SuNCEt": {1: 1.5, 4: 3.0}}
    assert "0.5000 at epoch 4, 50 % more views" in plot_snapshots.table(LINES, views)


def test_gain_is_over_the_epochs_of_both():
    assert plot_snapshots.gain(LINES["SuNCEt"], LINES["SimCLR"]) == {4: pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("file", "at_2", "at_4"),
    [
        # 195 steps an epoch; 256 x 2 views.
        ("semi/simclr_cifar10_resnet18.gin", 390 * 512, 780 * 512),
        # 176 x 2 + 160 x 1 views, then 176 x 2.
        ("semi/simclr_suncet_cifar10_resnet18.gin", 390 * 512, 390 * 512 + 390 * 352),
        ("semi/supervised_cifar10_resnet18.gin", 390 * 256, 780 * 256),  # One view.
        # Crops of each image, labelled or not: two of 32 px, four of 16 px.
        ("semi/swav_suncet_cifar10_resnet18.gin", 390 * 256 * 3, 390 * (256 + 176) * 3),
    ],
)
def test_views_are_counted_with_the_labelled_ones(tmp_path, file, at_2, at_4):
    run_dir = RunDir(tmp_path)
    resolved = config.parse([file], ["semi_supervised.batches.labelled_epochs = 2"])
    run_dir.config.write_text(resolved)
    run_dir.set_curve("pretrain", [{"epoch": 2, "step": 390}, {"epoch": 4, "step": 780}])
    views = plot_snapshots.views_by_epoch(tmp_path)
    assert views == {2: pytest.approx(at_2 / 1e6), 4: pytest.approx(at_4 / 1e6)}


@pytest.mark.parametrize(
    "binding",
    [
        "sources.subset.seed = 1",
        "sources.tfds.train_split = 'train[:9]'",
        "finetune.run.source = @sources.digits()",
    ],
)
def test_runs_of_other_images_are_not_compared(tmp_path, binding):
    runs = {"SimCLR": tmp_path / "a", "SwAV": tmp_path / "b"}
    for name, bindings in (("SimCLR", []), ("SwAV", [binding])):
        runs[name].mkdir()
        settings = config.parse([f"semi/{name.lower()}_cifar10_resnet18.gin"], bindings)
        RunDir(runs[name]).config.write_text(settings)
    setting = binding.split(" =")[0]
    with pytest.raises(UserError, match=f"'SimCLR' and 'SwAV' cannot be compared: {setting} is"):
        plot_snapshots.check_comparable(runs)
    settings = config.parse(["semi/swav_cifar10_resnet18.gin"], ["sources.tfds.cache = 'disk'"])
    RunDir(runs["SwAV"]).config.write_text(settings)
    plot_snapshots.check_comparable(runs)


def test_plot_has_a_line_per_run_and_axis(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    drawn: list[tuple[list[float], str]] = []
    draw = pyplot.Axes.plot

    def recorded(axes, x, y, *, label, **style):
        drawn.append((x, label))
        return draw(axes, x, y, label=label, **style)

    monkeypatch.setattr(pyplot.Axes, "plot", recorded)
    gains = {"SuNCEt over SimCLR": {4: 0.1}}
    panels = {"kNN": LINES, "tuned": LINES}
    plot_snapshots.plot(str(tmp_path / "epochs.png"), panels, VIEWS, "", gains)
    of_a_panel = [
        ([2, 4], "SimCLR"), ([1.0, 2.0], "SimCLR"),
        ([1, 4], "SuNCEt"), ([0.75, 1.5], "SuNCEt"),
        ([1, 2], "SwAV"), ([2.0, 4.0], "SwAV"),
    ]  # fmt: skip
    assert drawn == [*of_a_panel * 2, ([4], "SuNCEt over SimCLR")]


def test_a_gain_is_of_two_runs(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plot_snapshots, "snapshots", lambda run: [2])
    monkeypatch.setattr(plot_snapshots, "knn_top_1", lambda run: {2: 0.5})
    for gain in ("a", "a over c", "a over b over a"):
        with pytest.raises(UserError, match=rf"NAME over NAME' of \['a', 'b'\], got '{gain}'"):
            plot_snapshots.main(["--run=a=x", "--run=b=y", f"--gain={gain}"])


def test_processes_below_one_are_rejected():
    with pytest.raises(UserError, match="0 is not a positive integer"):
        plot_snapshots.main(["--run=a=b", "--processes=0"])
