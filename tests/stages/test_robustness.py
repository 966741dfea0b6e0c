"""Errors and calibration on corrupted images, baselines, and continued measurements."""

import functools
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.corruptions import CorruptedImages, on_the_fly
from supcon_tf.data.corruptions.base import read_images
from supcon_tf.data.imagenet_c import CORRUPTIONS, SEVERITIES
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation import corruption_cells, expected_calibration_error
from supcon_tf.evaluation.classifiers import saved_model
from supcon_tf.evaluation.corruption_error import ALEXNET
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import robustness


class BrightestChannel(tf.Module):
    """Class 0, 1 or 2 by the brightest channel, with as many classes as asked for."""

    def __init__(self, *, num_classes=3, has_scores=True):
        self.gain = tf.Variable(20.0)
        self.num_classes = num_classes
        self.has_scores = has_scores

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def serve(self, images):
        embedding = tf.reduce_mean(tf.cast(images, tf.float32) / 255, axis=[1, 2])
        if not self.has_scores:
            return {"embedding": embedding}
        others = tf.fill([tf.shape(images)[0], self.num_classes - 3], -9.0)
        logits = tf.concat([self.gain * embedding, others], axis=1)
        logits = tf.ensure_shape(logits, [None, self.num_classes])
        return {"embedding": embedding, "probabilities": tf.nn.softmax(logits)}


def export(path, **options):
    module = BrightestChannel(**options)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


@pytest.fixture
def folder(tmp_path):
    export(tmp_path / "export")
    return RunDir(tmp_path)


def coloured(labels, *, size=(32, 32)):
    """Grey noise in which the channel of the label is a little brighter."""
    noise = np.random.default_rng(0).integers(60, 190, (len(labels), *size, 3))
    for image, label in zip(noise, labels, strict=True):
        image[..., label] += 8
    return noise.astype(np.uint8)


def source_of(labels=(0, 1, 2, 0, 1, 2), *, size=(32, 32), num_classes=3):
    images = tf.constant(coloured(labels, size=size))
    split = IndexedSplit(np.array(labels, np.int64), lambda number: tf.gather(images, number))
    return Source("colours", tuple(f"c{n}" for n in range(num_classes)), split, split)


def made_by(function, *, description="made by a test"):
    """A `corrupted` for `robustness.run` from a function of image and cell."""

    def corrupted(source, *, cells, num_images, seed):
        def images(corruption, severity):
            clean = read_images(source.test, num_images=num_images, seed=seed)
            for number, (image, label) in enumerate(clean):
                at = {"corruption": corruption, "severity": severity, "number": number}
                yield function(image, **at), label

        return CorruptedImages(description, images)

    return corrupted


def unchanged(image, **at):
    return image


def results_of(folder):
    return json.loads((folder.root / "metrics.json").read_text())["robustness"]


def test_errors_and_calibration_are_measured_on_the_corrupted_images(folder):
    def paint_by_number(image, *, corruption, severity, number):
        # The first `severity` images become blue, which is clearly class 2; the others stay.
        return image * np.array([0, 0, 1], np.uint8) if number < severity else image

    labels = (0, 1, 0, 1, 0, 1)
    robustness.run(
        folder,
        source=source_of(labels),
        corruptions=("fog", "snow"),
        severities=(1, 3),
        batch_size=4,
        corrupted=made_by(paint_by_number),
    )
    results = results_of(folder)
    assert results["clean_error"] == 0
    assert results["errors"] == {
        "fog": pytest.approx([1 / 6, 3 / 6]),
        "snow": pytest.approx([1 / 6, 3 / 6]),
    }
    assert results["unnormalized_mean_error"] == pytest.approx((1 + 3) / 12)
    assert (results["severities"], results["num_images"]) == ([1, 3], 6)
    means = coloured(labels).mean(axis=(1, 2)) / 255
    scores = np.exp(20 * means)
    scores /= scores.sum(axis=1, keepdims=True)
    clean = expected_calibration_error(scores, np.array(labels))
    assert results["clean_calibration_error"] == pytest.approx(clean, abs=1e-5)
    assert results["calibration_errors"][1] > results["calibration_errors"][0]
    assert results["images_per_second"] == pytest.approx(5 * 6 / results["seconds"])


def test_a_cell_keeps_its_reliability_diagram_and_an_example(folder):
    robustness.run(
        folder,
        source=source_of(),
        corruptions=("fog",),
        severities=(3,),
        corrupted=made_by(lambda image, **at: np.zeros_like(image)),
    )
    record = json.loads((folder.root / "robustness.json").read_text())
    assert record["class_names"] == ["c0", "c1", "c2"]
    cell = record["cells"]["fog/3"]
    # Black images have three equal probabilities, so the guess is class 0 with 1 / 3, right for two of six.
    assert (
        cell["reliability"]["counts"] == [0] * 4 + [6] + [0] * 10
        or cell["reliability"]["counts"] == [0] * 5 + [6] + [0] * 9
    )
    assert sum(cell["reliability"]["hits"]) == 2
    assert sum(cell["reliability"]["confidences"]) == pytest.approx(2)
    assert cell["example"]["guess"] == 0
    assert cell["example"]["probability"] == pytest.approx(1 / 3)
    for name, is_black in (("fog_3", True), ("clean_0", False)):
        picture = tf.io.decode_png((folder.root / f"robustness/{name}.png").read_bytes())
        assert (picture.numpy().max() == 0) == is_black
        assert picture.shape == (32, 32, 3)


def test_corruptions_made_on_the_fly_are_deterministic(folder):
    options = {
        "source": source_of(),
        "corruptions": ("shot_noise", "contrast"),
        "severities": (5,),
        "corrupted": functools.partial(on_the_fly, processes=1),
    }
    robustness.run(folder, **options)
    first = results_of(folder)
    (folder.root / "robustness.json").unlink()
    robustness.run(folder, **options, batch_size=1)
    second = results_of(folder)
    assert second["errors"] == first["errors"]
    assert second["calibration_errors"] == pytest.approx(first["calibration_errors"], abs=1e-5)
    assert first["calibration_errors"] != first["clean_calibration_error"]


def test_a_killed_run_continues_after_the_last_finished_cell(folder, capsys):
    made = []

    def killed_at_snow(image, *, corruption, severity, number):
        if corruption == "snow" and number == 3:
            raise KeyboardInterrupt
        made.append((corruption, severity))
        return image

    options = {"source": source_of(), "corruptions": ("fog", "snow"), "severities": (1, 2)}
    with pytest.raises(KeyboardInterrupt):
        robustness.run(folder, **options, corrupted=made_by(killed_at_snow))
    assert not folder.metrics()

    made.clear()
    robustness.run(
        folder, **options, corrupted=made_by(lambda image, **at: made.append(at) or image)
    )
    assert {(at["corruption"], at["severity"]) for at in made} == {("snow", 1), ("snow", 2)}
    assert len(made) == 2 * 6
    assert "3 of 5 finished before" in capsys.readouterr().out
    assert set(results_of(folder)["errors"]) == {"fog", "snow"}


@pytest.mark.parametrize(
    "change",
    # All but the export are settings of one record.
    [
        "seed",
        "export",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("images", "corrupted", "classifier")
        ),
    ],
)
def test_cells_with_other_settings_are_measured_again(folder, change):
    made = []

    def noted(image, **at):
        made.append(at)
        return image

    options = {
        "source": source_of(),
        "corruptions": ("fog",),
        "severities": (1,),
        "corrupted": made_by(noted),
    }
    robustness.run(folder, **options)
    made.clear()
    if change == "export":
        export(folder.export)
    changed = {
        "seed": {"seed": 1},
        "images": {"max_images": 5},
        "export": {},
        "corrupted": {"corrupted": made_by(noted, description="of elsewhere")},
        "classifier": {"classifier": functools.partial(saved_model, scores="logits")},
    }[change]
    robustness.run(folder, **{**options, **changed})
    assert len(made) == changed.get("max_images", 6)


def test_a_measurement_with_other_settings_replaces_the_first_one_when_it_has_finished(folder):
    def killed(image, *, severity, **_):
        if severity == 2:
            raise KeyboardInterrupt
        return np.zeros_like(image)

    def never(*_, **__):
        raise AssertionError("was measured before")

    options = {"source": source_of(), "corruptions": ("fog",), "severities": (1, 2)}
    robustness.run(folder, **options, corrupted=made_by(unchanged))
    picture = folder.robustness_example("fog", 1)
    first = picture.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        robustness.run(folder, **options, corrupted=made_by(killed), max_images=4)
    assert picture.read_bytes() == first
    robustness.run(folder, **options, corrupted=made_by(never))
    made = []
    noted = made_by(lambda image, **at: made.append(at) or image)
    robustness.run(folder, **options, corrupted=noted, max_images=4)
    assert len(made) == 4  # The other severity was finished before.
    assert picture.read_bytes() != first
    assert json.loads((folder.root / "robustness.json").read_text())["settings"]["num_images"] == 4
    assert not (folder.root / "robustness_next.json").exists()


@pytest.fixture
def measured(monkeypatch):
    """Clean error 0.25 and then 0.75 for every cell, without running 75 of them."""
    errors = itertools.chain([0.25], itertools.repeat(0.75))
    monkeypatch.setattr(
        corruption_cells,
        "_measure",
        lambda *_, **__: {
            "error": next(errors),
            "calibration_error": 0.1,
            "adaptive_calibration_error": 0.1,
            "seconds": 2.0,
        },
    )


@pytest.mark.usefixtures("measured")
def test_mce_is_given_for_all_cells_of_a_thousand_classes(tmp_path):
    export(tmp_path / "other", num_classes=1000)
    folder = RunDir(tmp_path)
    options = {"source": source_of(num_classes=1000), "export": str(tmp_path / "other")}
    robustness.run(folder, **options)
    results = results_of(folder)
    assert results["errors"] == dict.fromkeys(CORRUPTIONS, [0.75] * len(SEVERITIES))
    assert results["seconds"] == 2 * 76
    ratios = [0.75 / ALEXNET[name] for name in CORRUPTIONS]
    relative = [(0.75 - 0.25) / (ALEXNET[name] - ALEXNET["clean"]) for name in CORRUPTIONS]
    assert results["mce"] == pytest.approx(100 * np.mean(ratios))
    assert results["relative_mce"] == pytest.approx(100 * np.mean(relative))

    for fewer in ({"severities": (1, 2)}, {"corruptions": CORRUPTIONS[1:]}):
        robustness.run(folder, **options, **fewer)
        assert not {"mce", "relative_mce"} & set(results_of(folder))


def run_with_baseline(folder, **options):
    """Results of a run whose baseline is another finished run."""
    robustness.run(folder, source=source_of(), corrupted=made_by(unchanged))
    other = RunDir(folder.root / "other")
    other.root.mkdir()
    options = {"source": source_of(), "corrupted": made_by(unchanged), **options}
    robustness.run(other, export=str(folder.export), baseline=str(folder.root), **options)
    return results_of(other)


@pytest.mark.usefixtures("measured")
def test_another_run_on_the_same_images_is_a_baseline(folder):
    results = run_with_baseline(folder)
    # The first cell of the other run has 0.75, like all its cells.
    assert results["mce"] == 100
    assert results["corruption_errors"] == dict.fromkeys(CORRUPTIONS, 100.0)
    assert results["relative_mce"] == pytest.approx(100 * (0.75 - 0.75) / (0.75 - 0.25))
    assert results["baseline"] == str(folder.root)


@pytest.mark.usefixtures("measured")
def test_a_baseline_of_other_images_is_rejected(folder):
    with pytest.raises(UserError, match="measured with num_images 6, this run with 5"):
        run_with_baseline(folder, max_images=5)


def test_an_undefined_relative_mce_is_left_out_with_a_message(folder, monkeypatch, capsys):
    # Corruption adds nothing to the error.
    cell = {"error": 0.5, "calibration_error": 0.1, "adaptive_calibration_error": 0.1}
    monkeypatch.setattr(corruption_cells, "_measure", lambda *_, **__: {**cell, "seconds": 1.0})
    results = run_with_baseline(folder)
    assert results["mce"] == pytest.approx(100)
    assert "relative_mce" not in results
    assert "no relative mCE, the baseline's error of" in capsys.readouterr().out


def test_a_baseline_needs_all_cells(folder):
    with pytest.raises(UserError, match="needs all 15 corruptions at all 5 severities"):
        robustness.run(folder, source=source_of(), severities=(1,), baseline="x")


@pytest.mark.usefixtures("measured")
def test_there_is_no_mce_without_a_baseline_or_imagenet_classes(folder):
    robustness.run(folder, source=source_of())
    results = results_of(folder)
    assert set(results["errors"]) == set(CORRUPTIONS)
    assert results["unnormalized_mean_error"] == pytest.approx(0.75)
    assert not {"mce", "relative_mce"} & set(results)


def test_extra_corruptions_enter_the_means_only_where_no_other_ran(folder):
    def blackened_by_spatter(image, *, corruption, severity, number):
        return np.zeros_like(image) if corruption == "spatter" else image

    for corruptions, mean_error in ((("fog", "spatter"), 0), (("spatter",), 1)):
        robustness.run(
            folder,
            source=source_of((1, 2)),
            corruptions=corruptions,
            severities=(1,),
            corrupted=made_by(blackened_by_spatter),
        )
        results = results_of(folder)
        assert results["unnormalized_mean_error"] == mean_error
        assert results["errors"]["spatter"] == [1]


def test_images_of_several_sizes_share_a_batch(folder):
    shapes = []
    noted = made_by(lambda image, **at: shapes.append(image.shape) or image)
    labels = np.array([0, 1, 2, 1], np.int64)
    sizes = [(32, 40), (520, 600), (32, 40), (300, 257)]
    encoded = tf.stack(
        [
            tf.io.encode_png(coloured([label], size=size)[0])
            for label, size in zip(labels, sizes, strict=True)
        ]
    )
    split = IndexedSplit(labels, lambda number: tf.gather(encoded, number))
    source = Source("sizes", ("a", "b", "c"), split, split)
    robustness.run(folder, source=source, corruptions=("fog",), severities=(1,), corrupted=noted)
    # A short side above 256 px is shrunk to that.
    expected = [(32, 40, 3), (256, 600 * 256 // 520, 3), (32, 40, 3), (300 * 256 // 257, 256, 3)]
    assert sorted(shapes) == sorted(expected)
    assert results_of(folder)["errors"] == {"fog": [0]}


def test_a_small_image_reaches_the_model_unchanged(folder):
    seen = []
    robustness.run(
        folder,
        source=source_of(),
        corruptions=("fog",),
        severities=(1,),
        corrupted=made_by(lambda image, **at: seen.append(image) or image),
    )
    assert {image.tobytes() for image in seen} == {
        image.tobytes() for image in coloured((0, 1, 2, 0, 1, 2))
    }


def test_an_image_below_32_px_is_rejected(folder):
    with pytest.raises(UserError, match="image 0 is 32 x 30 px"):
        robustness.run(
            folder,
            source=source_of(size=(32, 30)),
            corrupted=functools.partial(on_the_fly, processes=1),
        )


def test_an_export_without_class_scores_is_rejected(tmp_path):
    export(tmp_path / "export", has_scores=False)
    with pytest.raises(UserError, match=r"no class scores: put \"linear\" before"):
        robustness.run(RunDir(tmp_path), source=source_of())


def test_an_export_with_other_classes_is_rejected(folder):
    with pytest.raises(UserError, match="has 3 classes and the source 4"):
        robustness.run(folder, source=source_of(num_classes=4))


def test_a_missing_export_is_rejected(tmp_path):
    with pytest.raises(UserError, match='put "linear" before "robustness"'):
        robustness.run(RunDir(tmp_path), source=source_of())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ("rain",)}, r"corruptions must be .* got \('rain',\)"),
        ({"corruptions": ("fog", "fog")}, "each once"),
        ({"corruptions": ()}, "corruptions must be"),
        ({"corruptions": "fog"}, "corruptions must be .* got 'fog'"),
        ({"severities": 3}, "severities must be .* got 3"),
        ({"corrupted": "on_the_fly"}, "robustness.run.corrupted must be a function such as @corr"),
        ({"classifier": None}, "robustness.run.classifier must be a function such as @class"),
        ({"export": 3}, "robustness.run.export must be a path or None, got 3"),
        ({"baseline": 3}, "robustness.run.baseline must be a path or None, got 3"),
        ({"severities": (0, 1)}, r"severities must be .* got \(0, 1\)"),
        ({"batch_size": 0}, "robustness.run.batch_size must be an integer >= 1, got 0"),
        ({"max_images": 0}, "robustness.run.max_images must be an integer >= 1, got 0"),
        ({"seed": -1}, "robustness.run.seed must be an integer >= 0, got -1"),
    ],
)
def test_invalid_options_are_rejected(folder, options, message):
    with pytest.raises(UserError, match=message):
        robustness.run(folder, source=source_of(), **options)


def test_images_without_labels_are_skipped(folder, capsys):
    split = IndexedSplit(np.full(4, -1), lambda number: tf.zeros([4, 32, 32, 3], tf.uint8)[number])
    robustness.run(folder, source=Source("unlabelled", (), split, split))
    assert "robustness: skipped, the images of 'unlabelled'" in capsys.readouterr().out
    assert "robustness" not in folder.metrics()


@pytest.mark.parametrize("size", [(32, 4000), (4000, 32)])
def test_images_of_extreme_aspect_ratio_have_an_example(folder, size):
    robustness.run(
        folder,
        source=source_of((0, 1), size=size),
        corruptions=("fog",),
        severities=(1,),
        corrupted=made_by(unchanged),
    )
    picture = tf.io.decode_png(folder.robustness_example("fog", 1).read_bytes())
    assert sorted(picture.shape[:2]) == [1, 96]


def test_an_example_that_cannot_be_drawn_does_not_end_the_run(folder, monkeypatch, caplog):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(corruption_cells, "resize_longer_side", fail)
    robustness.run(
        folder,
        source=source_of(),
        corruptions=("fog",),
        severities=(1,),
        corrupted=made_by(unchanged),
    )
    assert results_of(folder)["errors"] == {"fog": [0]}
    assert "no picture of fog_1" in caplog.text


def test_a_corruption_without_images_is_rejected(folder):
    empty = CorruptedImages("none", lambda corruption, severity: iter(()))
    with pytest.raises(UserError, match="no images to measure for fog_1"):
        robustness.run(
            folder,
            source=source_of(),
            corruptions=("fog",),
            severities=(1,),
            corrupted=lambda *_, **__: empty,
        )


def test_a_source_of_another_type_is_rejected(folder):
    with pytest.raises(UserError, match=r"robustness.run.source must be .*got 'digits'"):
        robustness.run(folder, source="digits")
