"""Studies: the runs of a grid, one training per run, continuing a killed study, and the page."""

import dataclasses
import threading

import gin
import numpy as np
import pytest

from supcon_tf import config
from supcon_tf import study as command
from supcon_tf.errors import UserError
from supcon_tf.optimizers import warmup_schedule
from supcon_tf.reporting.study import Result, box_figure, grouped, neighbor_figure, write_study
from supcon_tf.run_dir import RunDir
from supcon_tf.studies import study
from tests.reporting.test_report import Page

METHODS = {"A": ("a.gin",), "B": ("b.gin",)}
GRID = {
    "rate": {"1": ("rate = 1",), "2": ("rate = 2",)},
    "optimizer": {"SGD": (), "fast one": ("optimizer = fast", "rate = 9")},
}
ONE_AT_A_TIME = [
    f"{method}--{changed}"
    for method in METHODS
    for changed in ("default", "rate=2", "optimizer=fast_one")
]


class Runs:
    """A stand-in for training: records its arguments and returns a value by a rule."""

    def __init__(self, top_1_of=lambda name: 0.5):
        self.asked, self.top_1_of = [], top_1_of

    def __call__(self, files, bindings, folder, lock, threads):
        self.asked.append((folder.name, tuple(files), tuple(bindings)))
        return self.top_1_of(folder.name)

    @property
    def names(self):
        return [name for name, _, _ in self.asked]


def run(root, trial, **options):
    return study.run(root, **{"methods": METHODS, "grid": GRID, "trial": trial, **options})


def test_one_factor_is_changed_at_a_time(tmp_path):
    runs = Runs()
    points = run(tmp_path, runs, bindings=("epochs = 3",))
    assert [point.folder for point in points] == ONE_AT_A_TIME
    asked = {name: (files, bindings) for name, files, bindings in runs.asked}
    assert asked["A--default"] == (("a.gin",), ("epochs = 3", "rate = 1"))
    assert asked["B--rate=2"] == (("b.gin",), ("epochs = 3", "rate = 2"))
    # The changed factor's rate overrides the default rate.
    assert asked["A--optimizer=fast_one"][1] == (
        *("epochs = 3", "rate = 1", "optimizer = fast", "rate = 9"),
    )
    assert {point.top_1 for point in points} == {0.5}


def test_a_product_has_every_combination(tmp_path):
    runs = Runs()
    run(tmp_path, runs, design="product")
    assert sorted(runs.names) == sorted(
        f"{method}--{changed}"
        for method in METHODS
        for changed in ("default", "rate=2", "optimizer=fast_one", "rate=2--optimizer=fast_one")
    )


def test_a_factor_may_belong_to_some_methods_only(tmp_path):
    runs = Runs()
    run(tmp_path, runs, only={"rate": ("A",)})
    assert set(runs.names) == set(ONE_AT_A_TIME) - {"B--rate=2"}


def test_a_killed_study_continues_with_the_missing_runs(tmp_path):
    def killed_at_the_third(name):
        if len(runs.asked) == 3:
            raise KeyboardInterrupt
        return 0.25

    runs = Runs(killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, runs)
    again = Runs()
    points = run(tmp_path, again)
    assert sorted(again.names) == sorted(ONE_AT_A_TIME[2:])
    assert [point.top_1 for point in points] == [0.25] * 2 + [0.5] * 4
    nothing = Runs()
    assert [point.top_1 for point in run(tmp_path, nothing)] == [0.25] * 2 + [0.5] * 4
    assert nothing.asked == []


def test_a_failed_run_is_counted_and_repeated(tmp_path, capsys):
    def diverges(name):
        if name == "A--rate=2":
            raise study.TrialFailed("A--rate=2: exit code 2")
        return 0.5

    points = run(tmp_path, Runs(diverges))
    assert [point.folder for point in points if point.top_1 is None] == ["A--rate=2"]
    assert "failed: A--rate=2: exit code 2" in capsys.readouterr().err
    again = Runs()
    assert None not in [point.top_1 for point in run(tmp_path, again)]
    assert again.names == ["A--rate=2"]


def test_several_processes_make_each_run_once(tmp_path):
    both = threading.Barrier(2, timeout=20)

    def with_another(name):
        # Passes only while two runs are active.
        both.wait()
        return 0.5

    runs = Runs(with_another)
    run(tmp_path, runs, processes=2)
    assert sorted(runs.names) == sorted(ONE_AT_A_TIME)


def test_a_changed_grid_runs_only_the_changed_points(tmp_path):
    run(tmp_path, Runs())
    changed = tmp_path / "trials/A--rate=2"
    changed.mkdir()
    (changed / "config.gin").write_text("rate = 2")
    runs = Runs()
    grid = {**GRID, "rate": {"1": ("rate = 1",), "2": ("rate = 2.5",), "3": ("rate = 3",)}}
    run(tmp_path, runs, grid=grid)
    assert sorted(runs.names) == ["A--rate=2", "A--rate=3", "B--rate=2", "B--rate=3"]
    # The run directory of the other rate is neither resumed nor lost.
    assert not changed.exists()
    assert (tmp_path / "trials/A--rate=2.1/config.gin").read_text() == "rate = 2"


def test_a_run_of_changed_files_is_set_aside_and_made_again(tmp_path):
    def made(name):
        (tmp_path / "trials" / name).mkdir(exist_ok=True)
        return 0.5

    run(tmp_path, Runs(made))
    states = {"A--default": "other settings", "A--rate=2": "unfinished"}

    def state(point, folder):
        return states.get(folder.name, "finished")

    def killed(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Runs(killed), state=state)
    assert (tmp_path / "trials/A--default.1").exists()
    states["A--default"] = "unfinished"  # The next call finds its new, empty directory.

    def fails_once(name):
        if name == "A--rate=2" and runs.names.count(name) == 1:
            raise study.TrialFailed("A--rate=2: exit code 2")
        states[name] = "finished"
        return 0.75

    runs = Runs(fails_once)
    accuracies = {point.folder: point.top_1 for point in run(tmp_path, runs, state=state)}
    assert sorted(runs.names) == ["A--default", "A--rate=2"]
    # The result from before the change counts no more.
    assert (accuracies["A--default"], accuracies["A--rate=2"]) == (0.75, None)
    accuracies = {point.folder: point.top_1 for point in run(tmp_path, runs, state=state)}
    assert runs.names[2:] == ["A--rate=2"]
    assert accuracies["A--rate=2"] == 0.75


def test_settings_of_the_command_line_reach_the_runs(tmp_path):
    own, of_runs = "study.run.processes = 3", "pretrain.run.epochs = 7"
    command.parse(["studies/cifar10_small_rates.gin"], [own, of_runs])
    assert config.bound_value("study.run.processes") == 3
    points = command.listed_points()
    assert all(of_runs in point.bindings and own not in point.bindings for point in points)
    command.parse(["studies/cifar10_small_rates.gin"], ["study.run.processes = %N", "N = 2"])
    assert config.bound_value("study.run.processes") == 2
    # A study file that sets something else sets it for no run.
    file = tmp_path / "mine.gin"
    file.write_text("include 'studies/cifar10_small_rates.gin'\npretrain.run.epochs = 7\n")
    with pytest.raises(UserError, match=r"sets study\.run only, got pretrain\.run\.epochs = 7"):
        command.parse([str(file)], [])


def test_the_state_of_a_run_is_by_its_settings_and_results(tmp_path):
    files, bindings = ["digits/supcon.gin"], ["pretrain.run.epochs = 3"]
    point = study.Point("A", {}, "A", files, bindings)
    run_dir = RunDir(tmp_path)
    assert command.state(point, tmp_path) == "unfinished"
    run_dir.config.write_text(
        config.parse(files, [*bindings, "linear.run.checkpoints_to_keep = 9"])
    )
    assert command.state(point, tmp_path) == "unfinished"
    run_dir.set_metrics("pretrain", {"top_1": 0.5})
    assert command.state(point, tmp_path) == "unfinished"  # The linear stage is missing.
    run_dir.set_metrics("linear", {"top_1": 0.5})
    assert command.state(point, tmp_path) == "finished"
    file = tmp_path / "changed.gin"
    file.write_text("include 'digits/supcon.gin'\nexperiment.run.evaluations = ('robustness',)\n")
    changed = dataclasses.replace(point, files=[str(file)])
    assert command.state(changed, tmp_path) == "unfinished"
    file.write_text("pretrain.run.no_such_setting = 3\n")
    assert command.state(changed, tmp_path) == "unfinished"
    run_dir.config.write_text(config.parse(files, ["pretrain.run.epochs = 4"]))
    assert command.state(point, tmp_path) == "other settings"


def test_a_second_study_in_the_same_directory_is_rejected(tmp_path):
    def start_another(name):
        with pytest.raises(UserError, match="is running"):
            run(tmp_path, Runs())
        return 0.5

    run(tmp_path, Runs(start_another), methods={"A": ("a.gin",)}, grid={})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"processes": 0}, "processes must be >= 1, got 0"),
        ({"design": "random"}, r"design must be one of .* got 'random'"),
        ({"only": {"size": ("A",)}}, "only has an unknown factor 'size'"),
        ({"methods": {}}, "needs at least one method, got none"),
        ({"only": {"rate": ("nobody",)}, "grid": {"rate": {"1": ()}}}, "unknown method 'nobody'"),
        ({"grid": {"rate": {}}}, "needs at least one level of 'rate'"),
    ],
)
def test_wrong_options_of_a_study_are_rejected(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        run(tmp_path, Runs(), **options)


def one_at_a_time(file):
    """The runs of a shipped study, or those of a product that change one factor."""
    command.parse([f"studies/{file}.gin"], ["study.run.design = 'one_at_a_time'"])
    return command.listed_points()


def test_a_failed_training_names_its_log(tmp_path):
    with (
        (tmp_path / "lock").open("w") as lock,
        pytest.raises(
            study.TrialFailed,
            match=r"error: no gin file 'no/such.gin'.* \(rate=0.1: exit code 2, see",
        ),
    ):
        command.train_in_subprocess(["no/such.gin"], [], tmp_path / "rate=0.1", lock.fileno(), 1)


@pytest.mark.parametrize(
    ("file", "runs"),
    [
        ("digits_stability", 28),
        ("cifar10_small", 22),
        ("cifar10_long_tail", 10),
        ("cifar10_small_rates", 24),
        ("cifar10_factors", 62),
        ("imagenet_factors", 64),
        ("cifar10_semi", 12),
        ("cifar10_semi_rates", 8),
        ("few_labels", 77),
    ],
)
def test_every_method_and_level_of_a_shipped_study_parses(file, runs):
    points = one_at_a_time(file)
    assert len({point.folder for point in points}) == len(points) == runs
    parsed = set()
    for point in points:
        parts = {tuple(point.files), tuple(point.bindings)}
        if not parts <= parsed:
            parsed |= parts
            assert "pretrain.run.source" in config.parse(point.files, point.bindings)


def levels_of(file, factor):
    """The runs of a shipped study that change this factor."""
    points = one_at_a_time(file)
    default = next(iter(config.bound_value("study.run.grid")[factor]))
    return [point for point in points if point.levels.get(factor, default) != default]


@pytest.mark.parametrize(
    ("file", "factor", "level", "runs", "rate", "weight_decay"),
    [
        ("cifar10_factors", "optimizer", "LARS", 3, 2.0, 1e-4),
        ("cifar10_factors", "optimizer", "Adam", 3, 0.001, 0.0),
        ("imagenet_factors", "optimizers", "momentum, momentum", 1, 2.4, 1e-4),
    ],
)
def test_another_optimizer_has_a_rate_and_decay_of_its_own(
    file, factor, level, runs, rate, weight_decay
):
    points = [point for point in levels_of(file, factor) if point.levels[factor] == level]
    assert len(points) == runs
    for point in points:
        config.parse(point.files, point.bindings)
        # Not multiplied by batch / 256.
        assert config.bound_value("optimizers.warmup_schedule.scale_by_batch") is False
        assert config.bound_value("optimizers.warmup_schedule.base_learning_rate") == rate
        assert config.bound_value("pretrain.run.weight_decay") == weight_decay


def test_a_short_linear_stage_ends_at_the_rate_of_the_long_one():
    points = [p for p in levels_of("imagenet_factors", "linear epochs") if p.method == "SupCon"]
    last = []
    for bindings in [(), *(point.bindings for point in points)]:
        config.parse(["imagenet/supcon_resnet50.gin"], bindings)
        epochs, batch_size = (
            config.bound_value(f"linear.run.{name}") for name in ("epochs", "batch_size")
        )
        steps = 1_281_167 / batch_size
        with gin.config_scope("linear"):
            schedule = gin.get_configurable(warmup_schedule)(
                batch_size=batch_size, steps_per_epoch=steps, epochs=epochs
            )
        last.append(float(schedule(int(epochs * steps))))
    # A drop of 0.97 every half epoch after 12 epochs of warm-up.
    expected = 0.05 * 6144 / 256 * 0.97 ** ((90 - 12) / 0.5)
    assert last == pytest.approx([expected, expected], rel=1e-4)


def results(top_1_of=lambda method, levels: 0.5):
    points = study.points(METHODS, GRID, design="one_at_a_time", only={})
    return [Result(p.method, p.levels, top_1_of(p.method, p.levels)) for p in points]


def test_a_factors_group_includes_the_default_runs():
    groups = grouped(results())
    assert {name: len(group) for name, group in groups.items()} == {"rate": 4, "optimizer": 4}
    points = study.points(METHODS, GRID, design="product", only={})
    groups = grouped([Result(p.method, p.levels, 0.5) for p in points])
    assert set(groups) == {"rate = 1", "rate = 2", "optimizer = SGD", "optimizer = fast one"}
    assert all(len(group) == 4 for group in groups.values())


def test_a_box_spans_the_quartiles():
    runs = [Result("A", {"rate": str(n)}, value) for n, value in enumerate((0.1, 0.2, 0.4, 0.9))]
    plot = box_figure({"rate": runs}, ["A"])
    quad = next(r.glyph for r in plot.renderers if hasattr(r.glyph, "bottom"))
    assert [quad.bottom, quad.top] == pytest.approx(np.quantile([0.1, 0.2, 0.4, 0.9], (0.25, 0.75)))


def test_the_page_lists_every_run(tmp_path):
    page = Page(
        write_study(
            results(lambda method, levels: None if levels["rate"] == "2" else 0.625),
            tmp_path / "study.html",
        )
    )
    assert "Top-1 accuracy of 6 runs, of which 2 failed" in page.text
    assert page.text.count("62.5%") == 4 + 2 * 3
    assert [plot["target_id"] for plot in page.plots] == ["boxes"]
    assert "During pretraining" not in page.text
    with pytest.raises(ValueError, match="none of the 6 runs"):
        write_study(results(lambda *_: None), tmp_path / "study.html")


def test_the_page_shows_the_neighbors_of_runs_with_snapshots(tmp_path):
    with_curve = Result(
        "A", {"seed": "0"}, 0.5, knn_top_1=0.4375, curve=[(0.5, 0.25), (1.0, 0.4375)]
    )
    without = Result("B", {"seed": "0"}, 0.5)
    page = Page(write_study([with_curve, without], tmp_path / "study.html"))
    assert [plot["target_id"] for plot in page.plots] == ["boxes", "curves"]
    assert page.text.count("43.8%") == 1
    plot = neighbor_figure([with_curve, without], ["A", "B"])
    (line,) = [r for r in plot.renderers if type(r.glyph).__name__ == "Line"]
    assert list(line.data_source.data["share"]) == [0.5, 1.0]
    assert list(line.data_source.data["top_1"]) == [0.25, 0.4375]


def test_a_result_has_the_neighbor_accuracies_of_its_run(tmp_path):
    def trial(files, bindings, folder, lock, threads):
        folder.mkdir()
        made = RunDir(folder)
        made.set_curve("pretrain", [{"epoch": 2, "knn_top_1": 0.25}, {"epoch": 3}, {"epoch": 4}])
        made.set_metrics("pretrain", {"knn_top_1": 0.375})
        made.set_metrics("linear", {"top_1": 0.5, "knn_top_1": 0.4375})
        return 0.5

    def points(rate):
        grid = {"rate": {"1": (f"rate = {rate}",)}}
        return study.run(tmp_path, methods={"A": ("a.gin",)}, grid=grid, trial=trial)

    (first,) = points(1)
    found = command.result(tmp_path, first)
    assert (found.top_1, found.knn_top_1, list(found.curve)) == (0.5, 0.4375, [(0.5, 0.25)])
    points(2)
    # The run with the first rate is known, but its run directory now holds the other run.
    (again,) = points(1)
    assert command.result(tmp_path, again) == Result("A", {"rate": "1"}, 0.5)
