"""What a run notes of its encoder, and the accuracies of its features before training."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from supcon_tf import models
from supcon_tf.data import sources, views
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.evaluation import knn_probabilities
from supcon_tf.evaluation.logistic_regression import logistic_regression
from supcon_tf.evaluation.scorer import Scorer
from supcon_tf.models.origin import origin_of
from supcon_tf.run_dir import RunDir
from supcon_tf.training import encoder_record
from supcon_tf.training.encoder_record import input_range, record_encoder

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 2
# Noise that is brighter in class 1, so that most images can be classified.
IMAGES = np.clip(RNG.normal(110 + 30 * LABELS, 40, (8, 8, 3, 40)), 0, 255).astype(np.uint8)
IMAGES = np.moveaxis(IMAGES, -1, 0)
PREPROCESSING = views.Preprocessing(
    8, eval_crop=lambda image, size_px: tf.cast(image, "float32") / 255
)


def split_of(rows):
    pixels = tf.constant(IMAGES[rows])
    return IndexedSplit(LABELS[rows], lambda number: tf.gather(pixels, number), reads_batches=True)


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory):
    keras.utils.set_random_seed(1)
    file = tmp_path_factory.mktemp("encoder") / "small.keras"
    parts = [keras.Input((None, None, 3)), layers.Conv2D(6, 3), layers.GlobalMaxPooling2D()]
    keras.Sequential(parts, name="small").save(file)
    return file


def measures_of(folder, encoder, validation=None):
    network = models.contrastive_model(
        encoder, image_shape=(8, 8, 3), projection=(4,), num_classes=2
    )
    source = sources.Source(
        *("noise", ("a", "b"), split_of(slice(24)), split_of(slice(24, 40))), validation=validation
    )
    return SimpleNamespace(
        run_dir=RunDir(folder),
        network=network,
        scorer=Scorer(network, preprocessing=PREPROCESSING, batch_size=8, stage="pretrain"),
        config=SimpleNamespace(stage="pretrain", seed=0),
        data=SimpleNamespace(source=source, preprocessing=PREPROCESSING),
        support=None,
    )


@pytest.mark.parametrize("has_validation", [False, True])
def test_frozen_accuracies_are_those_of_the_encoder_before_training(
    tmp_path, encoder_file, capsys, monkeypatch, has_validation
):
    encoder = models.pretrained(str(encoder_file))
    held = slice(30, 40)
    measures = measures_of(tmp_path, encoder, split_of(held) if has_validation else None)
    validations = []

    def fit(*args, validation, **options):
        validations.append(validation)
        return logistic_regression(*args, validation=validation, **options)

    monkeypatch.setattr(encoder_record, "logistic_regression", fit)
    record_encoder(measures, path=None, compare_with_frozen=True)
    features = encoder(IMAGES / np.float32(127.5) - 1).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    votes = knn_probabilities(features[24:], features[:24], LABELS[:24], num_classes=2)
    validation = (features[held], LABELS[held]) if has_validation else None
    fitted = logistic_regression(features[:24], LABELS[:24], num_classes=2, validation=validation)
    assert (validations[0] is not None) == has_validation
    if has_validation:
        rows, labels = validations[0]  # In the order in which they were read.
        order, expected_order = np.argsort(rows[:, 0]), np.argsort(features[held][:, 0])
        np.testing.assert_allclose(rows[order], features[held][expected_order], atol=1e-6)
        np.testing.assert_array_equal(labels[order], LABELS[held][expected_order])
    logits = features[24:] @ fitted.kernel + fitted.bias
    expected = {
        "frozen_knn_top_1": np.mean(votes.argmax(axis=1) == LABELS[24:]),
        "frozen_linear_top_1": np.mean(logits.argmax(axis=1) == LABELS[24:]),
    }
    record = measures.run_dir.encoders()["pretrain"]
    assert record["frozen"] == expected
    assert (record["name"], record["weights"]) == ("small", "file small.keras")
    assert (record["parameters"], record["dimensions"], record["image_px"]) == (168, 6, 8)
    shown = capsys.readouterr().out
    assert "pretrain: encoder small, weights: file small.keras, 168 parameters" in shown
    assert "pretrain: frozen encoder, before training: kNN 0." in shown


class Averages(keras.Model):
    """An encoder whose layers Keras cannot list before it is called."""

    def __init__(self):
        super().__init__()
        self.average = layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(5)

    def call(self, images):
        return self.dense(self.average(images))


def test_a_subclassed_encoder_is_recorded(tmp_path):
    measures = measures_of(tmp_path, Averages())
    record_encoder(measures, path=None, compare_with_frozen=True)
    record = measures.run_dir.encoders()["pretrain"]
    assert (record["parameters"], record["dimensions"]) == (3 * 5 + 5, 5)


def test_a_resumed_stage_does_not_measure_frozen_features_again(
    tmp_path, encoder_file, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        encoder_record, "_frozen_accuracies", lambda _: {"frozen_knn_top_1": float(len(calls))}
    )
    measures = measures_of(tmp_path, models.pretrained(str(encoder_file)))
    for _ in range(2):
        calls.append(1)  # Without a checkpoint the settings may have changed.
        record_encoder(measures, path=None, compare_with_frozen=True)
    measures.run_dir.checkpoints("pretrain").mkdir(parents=True)
    calls.append(1)
    record_encoder(measures, path=None, compare_with_frozen=True)
    assert measures.run_dir.encoders()["pretrain"]["frozen"] == {"frozen_knn_top_1": 2.0}


def test_only_pretrained_encoders_are_compared_with_their_frozen_features(tmp_path, encoder_file):
    plain = keras.saving.load_model(encoder_file)
    for encoder, weights in (
        (models.resnet(18, width=1 / 64), "random"),
        (models.pretrained("efficientnet_lite0", weights=None), "random"),
        (plain, "random, unless its constructor loads others"),
    ):
        measures = measures_of(tmp_path, encoder)
        record_encoder(measures, path=None, compare_with_frozen=True)
        record = measures.run_dir.encoders()["pretrain"]
        assert record["weights"] == weights
        assert "frozen" not in record
    # Weights of a run and of a file; and no comparison if it is not wanted.
    run = tmp_path / "digits"
    file = run / "checkpoints" / "pretrain" / "model.keras"
    file.parent.mkdir(parents=True)
    (run / "config.gin").touch()
    measures = measures_of(tmp_path / "other", plain)
    measures.run_dir.root.mkdir()
    plain_file = tmp_path / "b.keras"
    for each in (file, plain_file):
        each.write_bytes(b"a model")
    for path, weights in (
        (run, "run digits"),
        (file, "run digits"),
        (plain_file, "file b.keras"),
    ):
        record_encoder(measures, path=path, compare_with_frozen=True)
        assert measures.run_dir.encoders()["pretrain"]["weights"] == weights
    measures = measures_of(tmp_path, models.pretrained(str(encoder_file)))
    record_encoder(measures, path=None, compare_with_frozen=False)
    assert "frozen" not in json.loads((tmp_path / "encoders.json").read_text())["pretrain"]


def test_the_encoder_that_this_run_pretrained_is_not_recorded_again(tmp_path, encoder_file):
    measures = measures_of(tmp_path, models.pretrained(str(encoder_file)))
    record_encoder(measures, path=tmp_path)
    assert measures.run_dir.encoders() == {}


def test_input_range_is_that_after_normalization_and_scaling_layer():
    plain = models.resnet(18, width=1 / 64)
    assert input_range(plain, PREPROCESSING) == "[-1, 1]"
    # (-1 - 1) / 4 and (1 + 1) / 2.
    constants = ((1.0, 0.0, -1.0), (4.0, 2.0, 2.0))
    normalized = views.Preprocessing(8, normalization=constants)
    assert input_range(plain, normalized) == "[-0.5, 1], scaled by channel"
    images = keras.Input((8, 8, 3))
    for layer, expected in (
        (layers.Rescaling(127.5, offset=127.5), "[0, 255]"),
        (models.InputScaling([1.0, 1.0, 2.0], [0.0] * 3), "[-2, 2], scaled by channel"),
        (models.InputScaling([0.5] * 3, [0.5] * 3, bgr=True), "[0, 1], blue first"),
        (layers.BatchNormalization(), "[-1, 1]"),
    ):
        scaled = keras.Model(images, layers.Rescaling(3.0)(layer(images)))
        assert input_range(scaled, PREPROCESSING) == expected


def test_origin_names_the_network_and_its_weights(tmp_path):
    small = models.pretrained("MobileNetV3Small", weights=None)
    assert (origin_of(small).name, origin_of(small).weights) == ("MobileNetV3Small", "random")
    assert not origin_of(small).is_pretrained
    lite = models.pretrained("efficientnet_lite0")
    assert (origin_of(lite).name, origin_of(lite).weights) == ("efficientnet_lite0", "ImageNet")
    assert origin_of(lite).is_pretrained
    assert origin_of(keras.Sequential()) is None
