"""The web page of a run."""

import html.parser
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from supcon_tf import report
from supcon_tf.errors import UserError
from supcon_tf.reporting import plots, write_report
from supcon_tf.reporting.scored_split import (
    ScoredSplit,
    map_coordinates,
    map_sample,
    most_confused_classes,
    most_confused_pairs,
    read_scored_split,
)

METRICS = {
    "pretrain": {"seconds": 71.2, "images_per_second": 1530.4, "loss": 2.31, "own_number": 17},
    "linear": {"seconds": 5, "images_per_second": 4000.0, "top_1": 0.948, "knn_top_1": 0.975},
}
CURVES = {
    "linear": [
        {"epoch": 1, "step": 7, "loss": 0.7, "accuracy": 0.8},
        {"epoch": 2, "step": 14, "loss": 0.6, "accuracy": 0.9},
    ],
    "pretrain": [
        {"epoch": 1, "step": 11, "loss": 5.1, "accuracy": 0.41, "validation_accuracy": 0.4},
        {"epoch": 2, "step": 22, "loss": 3.2, "accuracy": 0.73, "learning_rate": 0.05},
    ],
}
SECTIONS = (
    "Training",
    "Map of the test embeddings",
    "Confusion matrix",
    "Most confused pairs",
    "Augmented views",
    "Settings",
    "Metrics and timings",
)


def split_arrays(*, n=40, num_classes=4, dimension=12, thumbnails=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    centres = rng.normal(size=(num_classes, dimension))
    return {
        "embeddings": (centres[labels] + 0.1 * rng.normal(size=(n, dimension))).astype(np.float32),
        "labels": labels.astype(np.int64),
        "class_names": np.array([f"class {i}" for i in range(num_classes)]),
        "probabilities": rng.dirichlet(np.ones(num_classes), size=n).astype(np.float32),
        "thumbnails": rng.integers(0, 256, (thumbnails, 8, 8, 3), dtype=np.uint8),
    }


def write_run(folder, *, config="", metrics=METRICS, curves=None, split=None, views=False):
    folder.mkdir(exist_ok=True)
    (folder / "config.gin").write_text(config, encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if curves:
        (folder / "curves.json").write_text(json.dumps(curves))
    if split:
        np.savez(folder / "test_split.npz", **split)
    if views:
        Image.new("RGB", (32, 16), "teal").save(folder / "views.png")
    return folder


class Page(html.parser.HTMLParser):
    """A parsed page: its elements and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.headings, self.text, self.plots = [], [], "", []
        self._open = {}
        self._tag = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self._tag, self._attributes = tag, dict(attrs)
        self.elements.append((tag, self._attributes))

    def handle_endtag(self, tag):
        self._tag = ""

    def handle_data(self, data):
        if self._tag == "script" and self._attributes.get("class") == "plot":
            self.plots.append(json.loads(data))
        if self._tag in ("h2", "h3"):
            self.headings.append(data)
        if self._tag not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    config = (
        "pretrain.run.source = @sources.digits()\npretrain.run.model = \\\n    @models.resnet()\n"
    )
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return write_run(folder, config=config, curves=CURVES, split=split_arrays(), views=True)


@pytest.fixture(scope="module")
def full_page(full_run):
    return Page(write_report(full_run))


def test_page_has_every_section_in_order(full_page):
    assert [h for h in full_page.headings if h in SECTIONS] == list(SECTIONS)
    # Stages are in the order they run, not in the order of the file.
    assert full_page.headings[1:3] == ["pretrain", "linear"]
    targets = [plot["target_id"] for plot in full_page.plots]
    assert targets == ["loss-0", "accuracy-0", "loss-1", "accuracy-1", "map", "confusion"]
    identifiers = [attrs["id"] for _, attrs in full_page.elements if "id" in attrs]
    assert identifiers == targets


def test_page_shows_source_model_stages_and_metrics(full_page):
    assert "Stages pretrain, linear on sources.digits with models.resnet, finished 2" in (
        full_page.text
    )
    for headline in (
        "Top-1 accuracy 94.8% linear",
        "kNN top-1 accuracy 97.5% linear",
        "Images per second 1,530 pretrain",
        "Time 1 min 16 s pretrain + linear",
    ):
        assert headline.replace(" ", "") in full_page.text.replace(" ", "")
    assert "own_number 17" in full_page.text


def test_page_opens_offline(full_page):
    addresses = [
        attrs[name]
        for _, attrs in full_page.elements
        for name in ("src", "href", "srcset", "data", "action")
        if name in attrs
    ]
    assert addresses
    assert all(address.startswith("data:image/webp;base64,") for address in addresses)
    policy = next(a["content"] for _, a in full_page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "link" not in {tag for tag, _ in full_page.elements}


def test_images_have_alternative_text(full_page):
    images = [attrs for tag, attrs in full_page.elements if tag == "img"]
    plots_shown = [attrs for _, attrs in full_page.elements if attrs.get("role") == "img"]
    assert all(attrs["alt"] for attrs in images)
    assert plots_shown[0]["aria-label"] == (
        "Loss of stage pretrain by epoch. Training: 5.1 at epoch 1, 3.2 at epoch 2."
    )


ENCODER = {
    "name": "efficientnet_lite0",
    "weights": "ImageNet",
    "inputs": "[-0.992, 1]",
    "image_px": 32,
    "resized_px": 96,
    "parameters": 3412,
    "dimensions": 1280,
    "frozen": {"frozen_knn_top_1": 0.81, "frozen_linear_top_1": 0.82},
}


def test_page_describes_the_encoder_and_compares_with_its_frozen_features(tmp_path):
    metrics = {
        "pretrain": {"knn_top_1": 0.85, "probe_top_1": 0.84, **ENCODER["frozen"]},
        "linear": {"knn_top_1": 0.85, "top_1": 0.87},
    }
    run = write_run(tmp_path, metrics=metrics)
    (run / "encoders.json").write_text(json.dumps({"pretrain": ENCODER}))
    page = Page(write_report(run))
    assert "Encoder" in page.headings
    for text in (
        "efficientnet_lite0, 3,412 parameters, 1,280 features",
        "Initial weights ImageNet",
        "32 px, resized to 96 px by the encoder, pixels scaled to [-0.992, 1]",
        "frozen after pretrain after linear",
        "kNN 81.0% 85.0% 85.0%",
        "Linear classifier 82.0% 87.0%",
        "kNN, frozen encoder 81.0% pretrain",
    ):
        assert text.replace(" ", "") in page.text.replace(" ", "")


@pytest.mark.parametrize(
    ("stages", "heading"),
    [
        (("pretrain", "finetune"), "frozen after pretrain after linear"),
        (("finetune",), "frozen after finetune"),
    ],
)
def test_frozen_features_are_beside_the_stages_of_that_encoder_only(tmp_path, stages, heading):
    metrics = {stage: {"knn_top_1": 0.85} for stage in ("pretrain", "linear", "finetune")}
    run = write_run(tmp_path, metrics=metrics)
    given = {**ENCODER, "frozen": {}}
    records = {stage: ENCODER if stage == stages[0] else given for stage in ("pretrain", *stages)}
    (run / "encoders.json").write_text(json.dumps(records))
    text = Page(write_report(run)).text.replace(" ", "")
    expected = (heading + " kNN 81.0%" + " 85.0%" * heading.count("after")).replace(" ", "")
    assert expected in "".join(text.split())


def test_page_of_a_random_encoder_has_no_comparison(tmp_path):
    record = {**ENCODER, "weights": "random", "resized_px": None}
    del record["frozen"]
    run = write_run(tmp_path)
    (run / "encoders.json").write_text(json.dumps({"pretrain": record, "finetune": record}))
    page = Page(write_report(run))
    assert "Initial weights random" in page.text.replace("weightsrandom", "weights random")
    assert "frozen" not in page.text
    assert page.text.count("efficientnet_lite0") == 1  # Finetune has no results yet.


def test_a_single_epoch_is_shown_in_numbers(tmp_path):
    record = {"epoch": 1, "step": 1, "loss": 0.25, "accuracy": 1.0}
    page = Page(write_report(write_run(tmp_path, curves={"linear": [record]})))
    assert "One epoch: loss 0.2500, accuracy 1.0000 on the training images." in page.text
    assert page.plots == []


def test_page_depends_on_nothing_but_the_run_directory(tmp_path):
    run = write_run(tmp_path, split=split_arrays(n=12))
    # Bokeh numbers its models throughout the process.
    first, second = (
        re.sub(r'"p\d+"', '"p"', write_report(run).read_text("utf-8")) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("left_out", "sections"),
    [
        ("curves", SECTIONS[:1]),
        ("split", SECTIONS[1:4]),
        ("views", SECTIONS[4:5]),
    ],
)
def test_section_without_file_is_left_out(tmp_path, left_out, sections):
    parts = {"curves": CURVES, "split": split_arrays(), "views": True}
    del parts[left_out]
    page = Page(write_report(write_run(tmp_path, **parts)))
    assert [h for h in page.headings if h in SECTIONS] == [s for s in SECTIONS if s not in sections]


def test_the_scored_split_of_an_older_version_is_shown(tmp_path):
    run = write_run(tmp_path, split=split_arrays())
    (run / "test_split.npz").rename(run / "held_out.npz")
    assert "Confusion matrix" in Page(write_report(run)).headings


def test_a_torn_scored_split_does_not_stop_the_report(tmp_path):
    run = write_run(tmp_path, curves=CURVES, split=split_arrays())
    file = run / "test_split.npz"
    file.write_bytes(file.read_bytes()[:-100])
    page = Page(write_report(run))
    assert "Training" in page.headings
    assert "Confusion matrix" not in page.headings
    assert f"{file} is damaged" in page.text


def test_run_without_plots_needs_no_script(tmp_path):
    run = write_run(tmp_path, metrics={"linear": {"top_1": 0.5}})
    page = Page(write_report(run))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "Stage linear, finished" in page.text


def test_run_without_predictions_has_a_map_but_no_confusions(tmp_path):
    arrays = split_arrays()
    del arrays["probabilities"]
    page = Page(write_report(write_run(tmp_path, split=arrays)))
    assert "Map of the test embeddings" in page.headings
    assert "Confusion matrix" not in page.headings
    assert "@prediction" not in json.dumps(page.plots)


def test_images_without_labels_have_a_map_without_classes(tmp_path):
    arrays = split_arrays()
    del arrays["probabilities"]
    arrays |= {"labels": np.full(40, -1), "class_names": np.array(())}
    page = Page(write_report(write_run(tmp_path, split=arrays)))
    assert "40 of 40 test examples in the plane" in page.text
    assert "see its image." in page.text
    assert "Confusion matrix" not in page.headings
    assert "input" not in {tag for tag, _ in page.elements}


def test_cross_entropy_run_shows_the_accuracy_of_its_first_stage(tmp_path):
    metrics = {"pretrain": {"top_1": 0.5, "top_5": 1.0, "seconds": 7300.0}}
    page = Page(write_report(write_run(tmp_path, metrics=metrics)))
    assert "Top-1 accuracy 50.0%".replace(" ", "") in page.text.replace(" ", "")
    assert "kNN" not in page.text
    assert "2 h 1 min" in page.text


def test_metrics_have_their_bootstrap_intervals(tmp_path):
    intervals = {"top_1": [0.91, 0.962], "aurc": [0.012341, 0.5]}
    metrics = {"linear": {"top_1": 0.94, "aurc": 0.25, "intervals": intervals}}
    page = Page(write_report(write_run(tmp_path / "with", metrics=metrics)))
    text = page.text.replace(" ", "")
    assert "top_194.0%91.0%to96.2%" in text
    assert "aurc0.250.01234to0.5" in text
    assert "95 % bootstrap intervals" in page.text
    # A run of an older version has none.
    old = Page(write_report(write_run(tmp_path / "old")))
    assert "bootstrap" not in old.text


def test_names_from_folders_cannot_become_markup(tmp_path):
    names = ["<script>alert(1)</script>", '"it\'s" & <b>', "</script><img src=x>", "日本語 $$x$$"]
    plain = Page(write_report(write_run(tmp_path / "plain", split=split_arrays())))
    arrays = {**split_arrays(), "class_names": np.array(names)}
    arrays["paths"] = np.array([f"</script>/{i}" for i in range(40)])
    metrics = {**METRICS, "<i>stage": {"<i>key": 1}}
    run = write_run(tmp_path / 'a <b> & "c"', config="</pre><u>", metrics=metrics, split=arrays)
    page = Page(write_report(run))
    for text in (*names, "</pre><u>", "<i>stage", "<i>key", 'a <b> & "c"'):
        assert text in page.text
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert len(page.plots) == len(plain.plots)


def test_paths_that_are_not_utf_8_are_escaped(tmp_path):
    name = b"caf\xe9".decode(errors="surrogateescape")
    arrays = split_arrays() | {"paths": np.array([f"{name}/{i}.png" for i in range(40)])}
    metrics = METRICS | {name: {"loss": 1.0}}
    page = Page(write_report(write_run(tmp_path, metrics=metrics, split=arrays)))
    assert "caf\\udce9" in page.text


def test_epochs_without_a_loss_are_counted_and_leave_a_gap(tmp_path):
    rows = [{"epoch": i, "loss": loss} for i, loss in enumerate([4.0, math.nan, None, 1.0])]
    page = Page(write_report(write_run(tmp_path, curves={"pretrain": rows})))
    assert "2 of 4 epochs have no finite loss." in page.text
    line = plots.curve_figure(rows, keys=["loss"]).renderers[0].data_source.data
    assert line["epoch"] == [0, 1, 3]
    np.testing.assert_array_equal(line["loss"], [4.0, math.nan, 1.0])


def test_stage_whose_losses_are_all_nan_still_has_a_page(tmp_path):
    rows = [{"epoch": i, "loss": math.nan} for i in range(3)]
    page = Page(write_report(write_run(tmp_path, curves={"pretrain": rows})))
    assert "3 of 3 epochs have no finite loss." in page.text
    assert page.plots == []


def test_the_page_is_written_with_the_error_of_a_section_that_cannot_be_drawn(tmp_path, caplog):
    run = write_run(tmp_path, curves=CURVES, split=split_arrays(), views=True)
    (run / "views.png").write_bytes(b"not a picture")
    page = Page(write_report(run))
    assert 'The section "views" could not be drawn: UnidentifiedImageError' in page.text
    assert [h for h in page.headings if h in SECTIONS] == [
        s for s in SECTIONS if s != "Augmented views"
    ]
    assert "the report has no section 'views'" in caplog.text


@pytest.mark.parametrize("size", [(20_000, 30), (30, 20_000)])
def test_a_view_sheet_above_the_size_limit_of_webp_is_scaled_down(tmp_path, size):
    run = write_run(tmp_path)
    Image.new("RGB", size, "teal").save(run / "views.png")
    page = Page(write_report(run))
    assert "Augmented views" in page.headings


def test_thumbnails_of_one_pixel_have_a_page(tmp_path):
    arrays = split_arrays()
    arrays["thumbnails"] = arrays["thumbnails"][:, :1, :1]
    assert (
        "Map of the test embeddings"
        in Page(write_report(write_run(tmp_path, split=arrays))).headings
    )


@pytest.mark.parametrize("missing", ["config.gin", "metrics.json"])
def test_error_of_a_missing_file_has_the_command_that_writes_it(tmp_path, missing):
    (write_run(tmp_path) / missing).unlink()
    with pytest.raises(UserError, match=rf"{missing} is missing.*supcon_tf.train --gin"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"pretrain": 3}'])
def test_metrics_that_are_not_objects_are_rejected(tmp_path, text):
    (write_run(tmp_path) / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics.json' is damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "40 embeddings need as many labels, got 3"),
        ({"labels": np.zeros((40, 3), int)}, "must be 0 or 1 for each of 4 classes"),
        ({"labels": np.full(40, 4)}, r"labels must be in \[0, 4\), got 4 to 4"),
        ({"probabilities": np.ones((40, 3))}, r"probabilities must be \(40, 4\), got \(40, 3\)"),
    ],
)
def test_split_arrays_that_disagree_are_rejected(tmp_path, change, message):
    run = write_run(tmp_path, split={**split_arrays(), **change})
    with pytest.raises(UserError, match=message):
        write_report(run)


def test_one_class_with_two_points_has_a_page(tmp_path):
    arrays = split_arrays(n=2, num_classes=1, thumbnails=0)
    page = Page(write_report(write_run(tmp_path, split=arrays)))
    assert "No test example is misclassified." in page.text
    assert "2 of 2 test examples in the plane" in page.text


def test_embeddings_that_are_not_finite_are_left_out_of_the_map(tmp_path):
    arrays = split_arrays()
    arrays["embeddings"][:5, 3] = np.nan
    page = Page(write_report(write_run(tmp_path / "some", split=arrays)))
    assert "35 of 40 test examples in the plane" in page.text
    arrays["embeddings"][:] = np.inf
    page = Page(write_report(write_run(tmp_path / "all", split=arrays)))
    assert "Map of the test embeddings" not in page.headings


def test_more_than_forty_classes_show_the_most_confused(tmp_path):
    arrays = split_arrays(n=120, num_classes=60)
    page = Page(write_report(write_run(tmp_path, split=arrays)))
    assert "The 40 most confused of 60 classes are shown" in page.text
    boxes = [attrs for tag, attrs in page.elements if tag == "input"]
    assert len(boxes) == 20
    assert "41 other classes" in page.text


def scored_split(*, labels, thumbnails=0, probabilities=None):
    return ScoredSplit(
        embeddings=np.ones((len(labels), 2), np.float32),
        labels=labels,
        class_names=[str(i) for i in range(labels.max() + 1)],
        probabilities=probabilities,
        thumbnails=["data:,"] * thumbnails,
        paths=[],
    )


def test_map_takes_evenly_spread_examples():
    chosen = map_sample(scored_split(labels=np.repeat(np.arange(10), 1000), thumbnails=1000))
    assert len(chosen) == 1500
    assert (chosen[0], chosen[-1]) == (0, 9999)
    assert set(np.diff(chosen)) == {6, 7}  # 9,999 / 1,499 is 6.67


def test_map_prefers_examples_with_thumbnails_when_they_show_every_class():
    chosen = map_sample(scored_split(labels=np.arange(10_000) % 10, thumbnails=1000))
    np.testing.assert_array_equal(chosen, np.arange(1000))


def test_a_larger_map_takes_examples_without_thumbnails_too():
    split = scored_split(labels=np.arange(10_000) % 10, thumbnails=1000)
    np.testing.assert_array_equal(map_sample(split, 20_000), np.arange(10_000))


def test_the_report_command_draws_so_many_points(tmp_path, capsys):
    run = write_run(tmp_path, split=split_arrays(n=40))
    report.main([f"--workdir={run}", "--map_points=30"])
    assert "30 of 40 test examples" in Page(run / "report.html").text
    assert capsys.readouterr().out == f"done: {run / 'report.html'}\n"
    (run / "test_split.npz").unlink()
    report.main([f"--workdir={run}", "--map_points=30"])
    assert capsys.readouterr().out.startswith("no map and no confusion matrix: '")
    with pytest.raises(UserError, match=r"no run in .*none"):
        report.main([f"--workdir={tmp_path / 'none'}"])
    with pytest.raises(UserError, match="map_points must be"):
        write_report(run, map_points=0)


def test_map_is_the_same_on_every_call_and_depends_on_directions_only():
    embeddings = split_arrays(n=60)["embeddings"]
    # Powers of two scale without rounding.
    lengths = 2.0 ** np.arange(-30, 30, dtype=np.float32)[:, None]
    first = map_coordinates(embeddings)
    np.testing.assert_array_equal(map_coordinates(embeddings), first)
    np.testing.assert_array_equal(map_coordinates(embeddings * lengths), first)


def test_map_of_very_large_embeddings_depends_on_directions_only():
    embeddings = split_arrays(n=60)["embeddings"]
    large = embeddings * np.float32(2.0**100)  # Their squares overflow in float32.
    np.testing.assert_array_equal(map_coordinates(large), map_coordinates(embeddings))


@pytest.mark.parametrize(("dimension", "few"), [(12, 1500), (300, 1500), (12, 50)])
def test_map_keeps_neighbours_together(dimension, few, monkeypatch):
    # More points than the usual map has are laid out by all cores, with a progress bar.
    monkeypatch.setattr("supcon_tf.reporting.scored_split.MAP_POINTS", few)
    arrays = split_arrays(n=100, dimension=dimension)
    points = map_coordinates(arrays["embeddings"])
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(arrays["labels"][distances.argmin(axis=1)], arrays["labels"])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_map_of_few_points_is_finite(n, dimension):
    embeddings = np.random.default_rng(0).normal(size=(n, dimension)).astype(np.float32)
    points = map_coordinates(embeddings)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_map_of_collapsed_embeddings_is_one_point(value):
    np.testing.assert_array_equal(map_coordinates(np.full((30, 4), value)), np.zeros((30, 2)))


def test_confusion_matrix_counts_every_example():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, (2, 200))
    expected = np.zeros((5, 5), int)
    for label, prediction in zip(labels, predictions, strict=True):
        expected[label, prediction] += 1
    plot = plots.confusion_figure(scored_split(labels=labels), predictions)
    data = plot.renderers[0].data_source.data
    counts = np.zeros((5, 5), int)
    counts[data["y"], data["x"]] = data["count"]
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_allclose(
        data["share"], (expected / expected.sum(axis=1, keepdims=True))[data["y"], data["x"]]
    )


def test_most_confused_classes_have_the_most_errors_in_row_and_column():
    labels = np.array([0, 1, 1, 2, 3, 3, 3])
    predictions = np.array([0, 2, 2, 2, 3, 3, 2])
    # Errors in row and column: none for class 0, two for 1, three for 2, one for 3.
    assert most_confused_classes(labels, predictions, limit=2).tolist() == [1, 2]


def test_most_confused_pairs_come_with_their_examples():
    labels = np.array([0, 1, 1, 1, 2, 0])
    predictions = np.array([1, 0, 1, 0, 2, 2])
    first, second = most_confused_pairs(labels, predictions, limit=2)
    assert (first.label, first.prediction, first.examples.tolist()) == (1, 0, [1, 3])
    assert first.share == pytest.approx(2 / 3)
    assert (second.label, second.prediction, second.examples.tolist()) == (0, 1, [0])


def test_twenty_classes_have_different_styles():
    assert len({plots.entry_style(entry) for entry in range(20)} | {plots.entry_style(-1)}) == 21


def test_thumbnails_belong_to_the_first_examples(tmp_path):
    np.savez(tmp_path / "test_split.npz", **split_arrays(thumbnails=3))
    split = read_scored_split(tmp_path / "test_split.npz")
    images = plots.map_figure(split).renderers[0].data_source.data["image"]
    assert [split.thumbnails[i] in images[i] for i in range(3)] == [True] * 3
    assert images[3:] == [""] * 37


def test_import_is_light():
    code = "import sys, supcon_tf.reporting; print({'bokeh', 'sklearn'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "set()"
