"""Neighbour accuracies of a stage, with all training images or a support as references."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.evaluation import scorer
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import pretrain
from supcon_tf.training import results
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.objective import Objective
from tests.fitting import training_config

RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255
CLASSES = ("reddish", "greenish")


def split_of(*images):
    """Images of one pixel each with their labels."""
    pixels = tf.constant(np.stack([color for color, _ in images])[:, None, None])
    labels = np.array([label for _, label in images])
    return IndexedSplit(labels, lambda number: tf.gather(pixels, number), reads_batches=True)


@pytest.fixture(scope="module")
def source():
    """Two labelled images, and three red ones; a wrong label would move their mean towards green."""
    train = split_of((RED, 0), (GREEN, 1), (RED, 1), (RED, 1), (RED, 1))
    return sources.Source("pixels", CLASSES, train, split_of((RED, 0), (GREEN, 1)))


def measured(source, support, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "save_serving_model", lambda *_, **__: None)
    # The pixel itself, in [-1, 1], is the embedding: two colours have a cosine of -1/3.
    pixel = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    model = models.contrastive_model(
        pixel, image_shape=(1, 1, 3), projection=(2,), num_classes=2, normalize_embedding=False
    )
    preprocessing = views.Preprocessing(1)
    folder = RunDir(tmp_path)
    folder.checkpoints("pretrain").mkdir(parents=True)
    folder.set_curve(
        "pretrain", [{"loss": 0.5, "step": 1, "seconds": 1.0, "images_per_second": 2.0}]
    )
    config = training_config(epochs=1, batch_size=2)
    data = TrainingData(source, preprocessing, views.identity, training_batches)
    measures = results.EpochMeasures(
        folder,
        model,
        results.stage_scorer(model, data, config),
        data,
        config,
        Objective({}, {}, trained_parts=("encoder",)),
        support,
    )
    results.evaluate_and_save(measures)
    found = folder.metrics()["pretrain"]
    return {name: found[f"{name}_top_1"] for name in ("knn", "prototype", "soft_neighbor")}


def test_without_a_support_all_training_images_vote(source, tmp_path, monkeypatch):
    # Red has one vote of exp(1 / tau), and three votes are against it. The mean of the red images is
    # nearer to red than the mean of one green and three red images.
    found = measured(source, None, tmp_path, monkeypatch)
    assert found == {"knn": 0.5, "prototype": 1.0, "soft_neighbor": 0.5}


def test_with_a_support_only_its_images_vote(source, tmp_path, monkeypatch):
    labelled = sources.subset(source, first=2)
    found = measured(source, labelled, tmp_path, monkeypatch)
    assert found == {"knn": 1.0, "prototype": 1.0, "soft_neighbor": 1.0}
    # All of them vote, whatever the limit of references is.
    monkeypatch.setattr(scorer, "MAX_REFERENCES", 1)
    blue = sources.Source("other", CLASSES, split_of((RED, 1), (BLUE, 0), (BLUE, 1)), source.test)
    found = measured(source, blue, tmp_path / "blue", monkeypatch)
    # Green has the cosine -1/3 with all three references: two of three vote for its class. Red has its own.
    assert found["soft_neighbor"] == 0.5


def test_a_support_of_other_classes_is_rejected(source, tmp_path):
    with pytest.raises(ValueError, match="must have the 2 classes of 'pixels', got 10 of"):
        pretrain.run(
            RunDir(tmp_path), source=source, support=sources.digits(), loss=None, optimizer=None,
            preprocessing=views.Preprocessing(1), augmentation=views.identity, schedule=None,
            model=models.contrastive_model, epochs=1, batch_size=1,
        )  # fmt: skip
