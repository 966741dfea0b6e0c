"""Contrastive accuracy compared with the measure of projections, and in fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses
from supcon_tf.evaluation import ContrastiveAccuracy, projection_measures
from supcon_tf.losses import pairs
from supcon_tf.losses.streaming import tiles
from tests.replicas import two_replicas


def batch(num_samples=20, num_views=2):
    rng = np.random.default_rng(num_samples)
    labels = rng.integers(4, size=num_samples)
    features = 0.7 * rng.normal(size=(num_samples, 1, 5)) + np.eye(5)[labels][:, None]
    features = features + 0.5 * rng.normal(size=(num_samples, num_views, 5))
    return labels, features.astype(np.float32)


@pytest.mark.parametrize("largest_dense", [0, 1024**2])
@pytest.mark.parametrize("kind", ["numbers", "rows", "none"])
def test_it_equals_the_measure_of_projections(kind, largest_dense, monkeypatch):
    monkeypatch.setattr(pairs, "_MAX_DENSE_SELF_CONTRAST", largest_dense)
    monkeypatch.setattr(tiles, "MAX_TILE_ROWS", 16)
    labels, features = batch()
    labels = {"numbers": labels, "rows": np.eye(4, dtype=int)[labels], "none": None}[kind]
    metric = ContrastiveAccuracy()
    metric.update_state(labels, features)
    expected = projection_measures(features, labels)["contrastive_accuracy"]
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    assert 0 < expected < 1


def test_anchors_without_a_positive_and_with_weight_0_are_left_out():
    features = np.array([[[1.0, 0.0]], [[0.9, 0.1]], [[0.0, 1.0]], [[0.85, 0.15]]], np.float32)
    metric = ContrastiveAccuracy()
    assert float(metric.result()) == 0
    metric.update_state([0, 0, 1, 2], features)
    # At 0, 6, 90 and 10 degrees: sample 1 is nearer to 3 than to 0.
    first = float(metric.result())
    metric.reset_state()
    metric.update_state([0, 0, 1, 2], features, sample_weight=[1.0, 0.0, 1.0, 1.0])
    assert float(metric.result()) == 1.0
    assert first == 0.5


@pytest.mark.parametrize("replicas", [False, True])
def test_it_is_logged_by_fit_on_one_device_and_on_two(replicas):
    labels, features = batch(24)
    strategy = two_replicas() if replicas else tf.distribute.get_strategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((2, 5)), keras.layers.Dense(3, use_bias=False)])
        model.compile("sgd", losses.SupConLoss(), metrics=[ContrastiveAccuracy()])
    kernel = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model.set_weights([kernel])
    logs = model.evaluate(features, labels, batch_size=24, verbose=0, return_dict=True)
    expected = projection_measures(features @ kernel, labels)["contrastive_accuracy"]
    assert logs["contrastive_accuracy"] == pytest.approx(expected, abs=1e-6)


def test_it_is_restored_from_its_config():
    metric = ContrastiveAccuracy(name="nearest")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert isinstance(restored, ContrastiveAccuracy)
    assert restored.name == "nearest"
