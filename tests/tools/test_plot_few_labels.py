"""Tables and picture of a study with few labels."""

import json

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.studies import study
from tools import plot_few_labels

LEVELS = ["Trash 5", "Trash 20", "Fruit 5"]
FOUND = {
    "frozen": {"Trash 5": {"0": 0.4, "1": 0.5}, "Trash 20": {"0": 0.6}},
    "SupCon": {"Trash 5": {"1": 0.6, "0": 0.4}, "Fruit 5": {"0": 0.7}},
}


@pytest.fixture
def points():
    return study.points(
        {"frozen": ("f.gin",), "SupCon": ("s.gin",)},
        {
            "labels": {level: (f"x = '{level}'",) for level in LEVELS},
            "seed": {"0": ("s = 0",), "1": ("s = 1",)},
        },
        design="product",
        only={},
    )


def test_finished_runs_of_this_study_are_read(tmp_path, points):
    for number, point in enumerate(points):
        folder = tmp_path / "trials" / point.folder
        folder.mkdir(parents=True)
        folder.with_name(f"{folder.name}.key").write_text(point.key)
        measures = {"top_1": 0.1, "knn_top_1": 0.2, "expected_calibration_error": 0.3}
        RunDir(folder).set_metrics("pretrain", measures)
        if number != 1:
            RunDir(folder).set_metrics("linear", {"top_1": number / 100, "knn_top_1": 0.3})
    other = tmp_path / "trials" / f"{points[2].folder}.key"
    other.write_text(json.dumps("another study"))
    found = plot_few_labels.accuracies(tmp_path, points, "logistic regression")
    assert found == {
        "frozen": {
            "Trash 5": {"0": 0.0},
            "Trash 20": {"1": 0.03},
            "Fruit 5": {"0": 0.04, "1": 0.05},
        },
        "SupCon": {
            "Trash 5": {"0": 0.06, "1": 0.07},
            "Trash 20": {"0": 0.08, "1": 0.09},
            "Fruit 5": {"0": 0.1, "1": 0.11},
        },
    }
    own = plot_few_labels.accuracies(tmp_path, points, "own classifier")
    assert own["SupCon"]["Trash 5"] == {"0": 0.1, "1": 0.1}
    readout = "calibration error of own classifier"
    errors = plot_few_labels.accuracies(tmp_path, points, readout)
    assert errors["SupCon"]["Trash 5"] == {"0": 0.3, "1": 0.3}
    assert plot_few_labels.accuracies(tmp_path, points, "kNN")["frozen"]["Trash 5"] == {"0": 0.3}


def test_tables_have_means_and_paired_differences():
    # t(0.975, 1 degree of freedom) = 12.7062, times the standard error 0.05.
    assert plot_few_labels.table(FOUND, LEVELS, 2).splitlines()[2:] == [
        "| frozen | 45.0 ± 63.5 | 60.0 (1 of 2) | - |",
        "| SupCon | 50.0 ± 127.1 | - | 70.0 (1 of 2) |",
    ]
    # 0.4 - 0.4 and 0.6 - 0.5, in whatever order the seeds are.
    assert plot_few_labels.differences(FOUND["SupCon"], FOUND["frozen"]) == {
        "Trash 5": {"0": 0.0, "1": pytest.approx(0.1)}
    }
    last = plot_few_labels.difference_table(FOUND, "frozen", LEVELS, 2).splitlines()[-1]
    # No mean over other levels than those of the other methods.
    assert last == "| SupCon | +5.0 ± 63.5 | - | - | - |"


def test_the_mean_over_levels_is_one_value_per_seed_of_all_levels():
    apart = {"a": {"0": 0.1, "1": 0.2, "2": 0.9}, "b": {"1": 0.4, "0": 0.3}}
    assert plot_few_labels.mean_over_levels(apart, ["a", "b"]) == pytest.approx([0.2, 0.3])


def test_the_interval_of_five_seeds_covers_the_mean_as_often_as_it_should():
    samples = np.random.default_rng(1).normal(size=(2000, 5))
    covered = [abs(np.mean(values)) <= plot_few_labels.half_width(values) for values in samples]
    assert 0.935 < np.mean(covered) < 0.965
    assert np.isnan(plot_few_labels.half_width([0.3]))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("frozen", "--base must be a method of the study, .* got 'frozen'"),
        ("SupCon", "no finished run"),
    ],
)
def test_a_wrong_base_or_directory_is_named(tmp_path, base, message):
    options = ["--gin_file=studies/few_labels.gin", f"--workdir={tmp_path}", f"--base={base}"]
    with pytest.raises(UserError, match=message):
        plot_few_labels.main(options)


def test_the_picture_has_a_panel_per_set(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    titles = []
    monkeypatch.setattr(pyplot.Axes, "set_title", lambda _, title: titles.append(title))
    plot_few_labels.plot(str(tmp_path / "few.png"), FOUND, LEVELS, label="top-1, %")
    assert titles == ["Trash", "Fruit"]
    assert (tmp_path / "few.png").stat().st_size > 0
