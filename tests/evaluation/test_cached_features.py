"""The linear stage on cached features: same classifier, no stale cache, resuming."""

import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.errors import UserError
from supcon_tf.evaluation.cached_features import cached_features
from supcon_tf.evaluation.logistic_regression import logistic_regression
from supcon_tf.optimizers import warmup_schedule
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import linear
from tests.replicas import two_replicas

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 12, 10, 3), np.uint8)
LABELS = RNG.integers(0, 3, 40)
PREPROCESSING = views.Preprocessing(8)


def split_of(images, labels):
    pixels = tf.constant(images)
    return IndexedSplit(labels, lambda number: tf.gather(pixels, number), reads_batches=True)


def source(images=IMAGES, labels=LABELS):
    splits = {
        "train": split_of(images[:24], labels[:24]),
        "validation": split_of(images[24:32], labels[24:32]),
        "test": split_of(images[32:], labels[32:]),
    }
    return sources.Source("noise", ("a", "b", "c"), **splits)


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(5, 3, activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
        ]
    )
    file = tmp_path_factory.mktemp("encoder") / "model.keras"
    encoder.save(file)
    return file


@pytest.fixture
def encoder(encoder_file):
    return keras.saving.load_model(encoder_file)


def run_linear(root, encoder_file, *, epochs=3, **options):
    folder = RunDir(root)
    folder.root.mkdir(exist_ok=True)
    linear.run(
        folder,
        encoder=str(encoder_file),
        **{
            "source": source(),
            "preprocessing": PREPROCESSING,
            "augmentation": views.identity,
            "optimizer": lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9),
            "schedule": lambda **lengths: warmup_schedule(base_learning_rate=3.0, **lengths),
            "epochs": epochs,
            "batch_size": 8,
            "weight_decay": 1e-3,
            "cache_features": True,
            # The settings of `linear/pipeline.training_batches` apply to features too.
            "batches": functools.partial(training_batches, samples_per_class=4),
            **options,
        },
    )
    return folder


def classifier_of(folder):
    model = keras.saving.load_model(folder.model("linear"), compile=False)
    return [variable.numpy() for variable in models.model_parts(model)["classifier"].variables]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, encoder_file):
    return run_linear(tmp_path_factory.mktemp("run") / "here", encoder_file)


def evaluation_crop(image, *, seed, size_px):
    """A training crop that equals the evaluation crop."""
    crop = views.eval_crop(image, size_px=size_px)
    return tf.broadcast_to(crop[:, None] if seed.shape.rank == 2 else crop, [*seed.shape, 8, 8, 3])


def test_cached_features_train_the_same_classifier_as_images_without_augmentation(
    finished, encoder_file, tmp_path
):
    cropped = views.Preprocessing(8, crop=evaluation_crop)
    other = run_linear(tmp_path / "run", encoder_file, cache_features=False, preprocessing=cropped)
    for one, two in zip(classifier_of(finished), classifier_of(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    for one, two in zip(finished.curve("linear"), other.curve("linear"), strict=True):
        for name in ("epoch", "step", "loss", "accuracy", "validation_accuracy", "learning_rate"):
            assert one[name] == pytest.approx(two[name], rel=1e-4)
    metrics, expected = finished.metrics()["linear"], other.metrics()["linear"]
    assert set(metrics) == set(expected)
    for name, interval in expected.pop("intervals").items():
        assert metrics["intervals"][name] == pytest.approx(interval, rel=1e-4)
    for name in expected.keys() - {"seconds", "images_per_second"}:
        assert metrics[name] == pytest.approx(expected[name], rel=1e-4)
    # Without augmentation there is no picture of augmented views.
    assert other.view_sheet.exists()
    assert not finished.view_sheet.exists()
    assert (finished.export / "labels.txt").read_text() == "a\nb\nc\n"


@pytest.mark.slow  # tests/models/test_distributed.py trains a classifier on two replicas.
def test_two_replicas_train_the_classifier_of_one(finished, encoder_file, tmp_path):
    other = run_linear(tmp_path / "run", encoder_file, strategy=two_replicas())
    for one, two in zip(classifier_of(finished), classifier_of(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert other.metrics()["linear"]["top_1"] == finished.metrics()["linear"]["top_1"]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    finished, encoder_file, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    folder = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch:
        # After the second of three epochs.
        patch.setattr(
            RunDir,
            "set_curve",
            lambda self, stage, records, set_curve=RunDir.set_curve: (
                killed() if len(records) == 3 else set_curve(self, stage, records)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            run_linear(folder.root, encoder_file)
    files = {file: file.stat().st_mtime_ns for file in folder.features.iterdir()}
    assert len(files) == 2
    run_linear(folder.root, encoder_file)
    assert {file: file.stat().st_mtime_ns for file in folder.features.iterdir()} == files
    for one, two in zip(classifier_of(folder), classifier_of(finished), strict=True):
        np.testing.assert_array_equal(one, two)


def features(tmp_path, encoder, encoder_file, split=None, preprocessing=PREPROCESSING):
    return cached_features(
        tmp_path / "features",
        "training",
        split or source().train,
        encoder,
        encoder_file=encoder_file,
        preprocessing=preprocessing,
        batch_size=7,
        description="testing",
    )


def only_file(tmp_path):
    (file,) = (tmp_path / "features").iterdir()
    return file.name


def test_features_are_the_embeddings_of_the_evaluation_views(tmp_path, encoder, encoder_file):
    expected = encoder.predict(PREPROCESSING.evaluation_view(tf.constant(IMAGES[:24])), verbose=0)
    for _ in range(2):  # Computed, then read.
        found = features(tmp_path, encoder, encoder_file)
        np.testing.assert_allclose(found.embeddings, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.labels, LABELS[:24])
        assert found.seconds > 0
    rows, labels = found.as_split().example(tf.constant([3, 1], tf.int64))
    np.testing.assert_array_equal(rows, found.embeddings[[3, 1]])
    np.testing.assert_array_equal(labels, LABELS[[3, 1]])


def test_streamed_images_are_cached_in_their_order(tmp_path, encoder, encoder_file):
    def one_pass(seed):
        assert seed is None
        return tf.data.Dataset.from_tensor_slices((IMAGES[:24], LABELS[:24]))

    found = features(tmp_path, encoder, encoder_file, StreamedSplit(24, one_pass))
    expected = features(tmp_path, encoder, encoder_file)
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_change_that_affects_features_gives_another_file(tmp_path, encoder, encoder_file):
    features(tmp_path, encoder, encoder_file)
    seen = [only_file(tmp_path)]
    other_pixels = IMAGES.copy()
    other_pixels[3, 5, 5, 0] += 1
    other_labels = LABELS.copy()
    other_labels[3] = (other_labels[3] + 1) % 3
    other_encoder = tmp_path / "other.keras"
    encoder.save(other_encoder)

    def corner(image, *, size_px):
        return views.eval_crop(image, size_px=size_px, method="crop_then_resize")

    for changed in (
        {"split": source(images=other_pixels).train},
        {"split": source(labels=other_labels).train},
        {"split": source().train.take(np.arange(23))},
        {"preprocessing": views.Preprocessing(8, eval_crop=corner)},
        {"preprocessing": views.Preprocessing(8, normalization=((0, 0, 0), (1, 1, 2)))},
    ):
        features(tmp_path, encoder, encoder_file, **changed)
        seen.append(only_file(tmp_path))  # The previous file has been removed.
    with other_encoder.open("ab") as file:
        file.write(b"another")
    features(tmp_path, encoder, other_encoder)
    seen.append(only_file(tmp_path))
    assert len(set(seen)) == len(seen)


def test_a_changed_image_file_is_detected(tmp_path, encoder, encoder_file, image_folder):
    def key():
        split = sources.folder(root=str(image_folder)).train
        features(tmp_path, encoder, encoder_file, split)
        return split, only_file(tmp_path)

    split, before = key()
    assert key()[1] == before
    os.utime(split.paths[-1], (1, 1))
    assert key()[1] != before


def test_batches_that_need_images_are_rejected(encoder_file, tmp_path):
    with pytest.raises(UserError, match="nothing to augment on the device: set linear/pipeline"):
        run_linear(
            tmp_path / "run",
            encoder_file,
            batches=functools.partial(training_batches, defer_to_device=True),
        )


def unit_length(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_lbfgs_makes_an_ordinary_classifier_of_the_cached_features(
    finished, encoder_file, encoder, tmp_path
):
    folder = run_linear(
        tmp_path / "run", encoder_file, solver="lbfgs", cache_features=False, weight_decay=0.0
    )
    (file,) = folder.features.glob("training-*.npz")
    assert file.name == next(finished.features.glob("training-*.npz")).name
    with np.load(file) as arrays:
        features, labels = arrays["embedding"], arrays["labels"]
    with np.load(next(folder.features.glob("validation-*.npz"))) as arrays:
        validation = arrays["embedding"], arrays["labels"]
    expected = logistic_regression(
        unit_length(features),
        labels,
        num_classes=3,
        validation=(unit_length(validation[0]), validation[1]),
    )
    kernel, bias = classifier_of(folder)
    np.testing.assert_allclose(kernel, expected.kernel, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bias, expected.bias, rtol=1e-3, atol=1e-4)
    (record,) = folder.curve("linear")
    assert record["inverse_strength"] == expected.strength
    assert set(folder.metrics()["linear"]) == set(finished.metrics()["linear"])
    assert (folder.export / "labels.txt").read_text() == "a\nb\nc\n"

    # Killed before its results were saved: the checkpoint has the same classifier.
    results = folder.metrics()["linear"]
    folder.remove_metrics("linear")
    folder.model("linear").unlink()
    run_linear(folder.root, encoder_file, solver="lbfgs", cache_features=False, weight_decay=0.0)
    np.testing.assert_array_equal(classifier_of(folder)[0], kernel)
    again = folder.metrics()["linear"]
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in results.items() if k != "seconds"
    }


def test_lbfgs_of_several_labels_records_the_binary_cross_entropy(
    encoder_file, tmp_path, results_only
):
    rows = np.random.default_rng(1).integers(0, 2, (40, 3))
    folder = run_linear(
        tmp_path / "run",
        encoder_file,
        solver="lbfgs",
        source=source(labels=rows),
        weight_decay=0.0,
        batches=training_batches,
    )
    kernel, bias = classifier_of(folder)
    with np.load(next(folder.features.glob("training-*.npz"))) as arrays:
        features = unit_length(arrays["embedding"])
    with np.load(next(folder.features.glob("validation-*.npz"))) as arrays:
        validation = unit_length(arrays["embedding"]), rows[24:32]
    expected = logistic_regression(features, rows[:24], num_classes=3, validation=validation)
    np.testing.assert_allclose(kernel, expected.kernel, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bias, expected.bias, rtol=1e-3, atol=1e-4)
    (record,) = folder.curve("linear")
    probabilities = 1 / (1 + np.exp(-(features @ kernel + bias)))
    likelihoods = np.where(rows[:24] == 1, probabilities, 1 - probabilities)
    assert record["loss"] == pytest.approx(-np.log(likelihoods).mean(), rel=1e-4)
    assert record["validation_loss"] == pytest.approx(expected.validation_loss, rel=1e-4)
    assert record["inverse_strength"] == expected.strength
    assert "accuracy" not in record
    assert 0 <= folder.metrics()["linear"]["mean_average_precision"] <= 1


def test_settings_that_lbfgs_would_ignore_are_rejected(encoder_file, tmp_path):
    for options, message in (
        ({"weight_decay": 0.1}, "weight_decay = 0"),
        ({"weight_decay": 0.0, "loss": keras.losses.CategoricalCrossentropy()}, "loss = None"),
        ({"weight_decay": 0.0, "callbacks": (keras.callbacks.History(),)}, "callbacks = "),
        ({"solver": "newton"}, "linear.run.solver must be one of"),
    ):
        with pytest.raises(UserError, match=message):
            run_linear(tmp_path / "run", encoder_file, **{"solver": "lbfgs", **options})
